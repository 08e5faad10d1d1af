//! Layers that do not pay on their own, but do in the whole network: floats between layers in 8 bits are
//! converted, and written in twice the bytes.

use super::assignment::{Kind, Plan};

/// Layers reconsidered at most, those first that lose least.
pub const MOST: usize = 16;

/// What became of layers that were refused.
#[derive(Clone, Debug, PartialEq)]
pub struct Reconsidered {
    pub plan: Plan,
    /// Time of the whole network under `plan`.
    pub us: f64,
    /// Layers that are in the kind after all.
    pub taken_back: Vec<String>,
}

/// Tries `kind` for each of the `refused` layers, which are named with the time that each loses on its
/// own, and keeps it where the whole network is faster. `total_us` answers with the time under a plan.
///
/// # Errors
/// If a plan has no time.
pub fn reconsider<E>(
    plan: Plan,
    refused: &[(String, f64)],
    kind: Kind,
    total_us: &mut dyn FnMut(&Plan) -> Result<f64, E>,
) -> Result<Reconsidered, E> {
    let mut order: Vec<&(String, f64)> = refused.iter().collect();
    order.sort_by(|(_, a), (_, b)| a.total_cmp(b));
    let mut best = Reconsidered {
        us: total_us(&plan)?,
        plan,
        taken_back: Vec::new(),
    };
    for (name, _) in order.into_iter().take(MOST) {
        let plan = best.plan.with(name, kind);
        let us = total_us(&plan)?;
        if us < best.us {
            best.plan = plan;
            best.us = us;
            best.taken_back.push(name.clone());
        }
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// A chain of layers: each loses so much in `i8`, and every change of kind between two costs 2.
    fn chain(losses: &[f64]) -> impl FnMut(&Plan) -> Result<f64, Infallible> {
        move |plan| {
            let kinds: Vec<Kind> = (0..losses.len())
                .map(|n| plan.kind(&format!("layer{n}")))
                .collect();
            let own = kinds.iter().zip(losses).filter(|(kind, _)| **kind == Kind::Int8);
            let changes = kinds.windows(2).filter(|pair| pair[0] != pair[1]).count();
            #[expect(clippy::cast_precision_loss, reason = "there are few layers")]
            let converted = changes as f64 * 2.0;
            Ok(100.0 + own.map(|(_, loss)| loss).sum::<f64>() + converted)
        }
    }

    /// Begins with the layers in `i8` that gain by themselves.
    fn run(losses: &[f64]) -> Reconsidered {
        let named = || {
            losses
                .iter()
                .enumerate()
                .map(|(n, &loss)| (format!("layer{n}"), loss))
        };
        let gains = named().filter(|(_, loss)| *loss < 0.0);
        let plan = gains.fold(Plan::default(), |plan, (name, _)| plan.with(&name, Kind::Int8));
        let refused: Vec<_> = named().filter(|(_, loss)| *loss >= 0.0).collect();
        let Ok(found) = reconsider(plan, &refused, Kind::Int8, &mut chain(losses));
        found
    }

    #[test]
    fn a_layer_between_two_in_bytes_pays_though_it_is_slower_alone() {
        let found = run(&[-5.0, 1.0, -5.0]);
        assert_eq!(found.taken_back, ["layer1"]);
        assert!((found.us - 91.0).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn a_layer_that_loses_more_than_its_neighbours_convert_stays_refused() {
        let found = run(&[-5.0, 4.5, -5.0]);
        assert!(found.taken_back.is_empty(), "{found:?}");
        assert_eq!(found.plan.kind("layer1"), Kind::Float);
        assert!((found.us - 94.0).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn layers_that_lose_least_come_first_and_one_at_a_time() {
        // Between these, one layer alone saves no conversion.
        let found = run(&[-5.0, 1.5, 1.0, -5.0]);
        assert!(found.taken_back.is_empty(), "{found:?}");
        let found = run(&[-5.0, 1.5, -0.5, 1.0, -5.0]);
        assert_eq!(found.taken_back, ["layer3", "layer1"]);
    }

    #[test]
    fn only_so_many_layers_are_tried() {
        let losses = [1.0; MOST + 9];
        let refused: Vec<_> = losses
            .iter()
            .enumerate()
            .map(|(n, &loss)| (format!("layer{n}"), loss))
            .collect();
        let mut n_tried = 0;
        let mut total = |_: &Plan| {
            n_tried += 1;
            Ok::<f64, Infallible>(1.0)
        };
        let Ok(found) = reconsider(Plan::default(), &refused, Kind::Int8, &mut total);
        assert!(found.taken_back.is_empty());
        assert_eq!(n_tried, MOST + 1);
    }
}
