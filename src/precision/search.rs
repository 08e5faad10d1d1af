//! Moves layers between kinds until a budget holds.

use std::collections::BTreeMap;

use super::assignment::{Kind, Plan};
use super::metric::Budget;

/// What one plan costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// Of the budget's metric.
    pub value: f64,
    /// Relative error of the outputs, which tells plans apart that the metric does not.
    pub error: f64,
}

/// A layer whose kind is open.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    pub name: String,
    /// Kinds from the cheapest to the most accurate; the first is where it begins.
    pub kinds: Vec<Kind>,
    /// Time that the first kind saves over the last; in any unit, above zero.
    pub benefit: f64,
}

/// What became of a search.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    pub plan: Plan,
    pub score: Score,
    /// Relative error of the outputs with one layer alone in its first kind, worst first.
    pub sensitivity: Vec<(String, f64)>,
    pub is_met: bool,
}

/// Relative error of the outputs with each candidate alone in its cheapest kind, worst first.
///
/// # Errors
/// If a plan cannot be judged.
pub fn sensitivity<E>(
    candidates: &[Candidate],
    fixed: &Plan,
    judge: &mut dyn FnMut(&Plan) -> Result<Score, E>,
) -> Result<Vec<(String, f64)>, E> {
    let accurate = plan_at(candidates, fixed, &|candidate| candidate.kinds.len() - 1);
    let mut found = Vec::with_capacity(candidates.len());
    for candidate in candidates {
        let plan = accurate.with(&candidate.name, candidate.kinds[0]);
        found.push((candidate.name.clone(), judge(&plan)?.error));
    }
    found.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    Ok(found)
}

/// The plan that keeps `budget` with as many layers in cheap kinds as possible: layers give up their
/// kind by loss per benefit, worst first; each first takes its next kind, and more accurate ones where
/// that is not enough.
///
/// # Errors
/// If a plan cannot be judged.
pub fn search<E>(
    candidates: &[Candidate],
    fixed: &Plan,
    budget: &Budget,
    judge: &mut dyn FnMut(&Plan) -> Result<Score, E>,
) -> Result<Outcome, E> {
    let cheapest = plan_at(candidates, fixed, &|_| 0);
    let score = judge(&cheapest)?;
    let sensitivity = sensitivity(candidates, fixed, judge)?;
    if budget.allows(score.value) {
        return Ok(Outcome {
            plan: cheapest,
            score,
            sensitivity,
            is_met: true,
        });
    }
    let order = by_loss(candidates, &sensitivity);
    let most = candidates
        .iter()
        .map(|candidate| candidate.kinds.len() - 1)
        .max()
        .unwrap_or(0);
    // All layers one kind up, then all two up, ..: the last of these that does not keep the budget is
    // where single layers are moved on from.
    for level in 1..=most {
        let at = |n_moved: usize| {
            plan_at(candidates, fixed, &|candidate| {
                let is_moved = order[..n_moved].contains(&candidate.name.as_str());
                (level - usize::from(!is_moved)).min(candidate.kinds.len() - 1)
            })
        };
        if let Some((plan, score)) = fewest_moves(order.len(), &at, budget, judge)? {
            return Ok(Outcome {
                plan,
                score,
                sensitivity,
                is_met: true,
            });
        }
    }
    let plan = plan_at(candidates, fixed, &|candidate| candidate.kinds.len() - 1);
    let score = judge(&plan)?;
    Ok(Outcome {
        is_met: budget.allows(score.value),
        plan,
        score,
        sensitivity,
    })
}

fn plan_at(candidates: &[Candidate], fixed: &Plan, step: &dyn Fn(&Candidate) -> usize) -> Plan {
    candidates.iter().fold(fixed.clone(), |plan, candidate| {
        plan.with(&candidate.name, candidate.kinds[step(candidate)])
    })
}

/// Names by loss per benefit, worst first.
fn by_loss<'a>(candidates: &'a [Candidate], sensitivity: &[(String, f64)]) -> Vec<&'a str> {
    let losses: BTreeMap<&str, f64> = sensitivity
        .iter()
        .map(|(name, loss)| (name.as_str(), *loss))
        .collect();
    let mut order: Vec<(&str, f64)> = candidates
        .iter()
        .map(|candidate| {
            let loss = losses.get(candidate.name.as_str()).copied().unwrap_or(0.0);
            (
                candidate.name.as_str(),
                loss / candidate.benefit.max(f64::MIN_POSITIVE),
            )
        })
        .collect();
    order.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    order.into_iter().map(|(name, _)| name).collect()
}

/// The plan with the fewest moves that keeps the budget, by bisection; `None` if not even all do.
fn fewest_moves<E>(
    n_all: usize,
    at: &dyn Fn(usize) -> Plan,
    budget: &Budget,
    judge: &mut dyn FnMut(&Plan) -> Result<Score, E>,
) -> Result<Option<(Plan, Score)>, E> {
    let score = judge(&at(n_all))?;
    if !budget.allows(score.value) {
        return Ok(None);
    }
    let mut best = (at(n_all), score);
    let (mut too_few, mut enough) = (0, n_all);
    while enough - too_few > 1 {
        let middle = usize::midpoint(too_few, enough);
        let plan = at(middle);
        let score = judge(&plan)?;
        if budget.allows(score.value) {
            enough = middle;
            best = (plan, score);
        } else {
            too_few = middle;
        }
    }
    Ok(Some(best))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn candidates(n: usize) -> Vec<Candidate> {
        (0..n)
            .map(|layer| Candidate {
                name: format!("layer{layer}"),
                kinds: vec![Kind::Int8, Kind::Float],
                benefit: 1.0,
            })
            .collect()
    }

    /// Layer `n` in `i8` costs `2^-n`.
    #[expect(clippy::unnecessary_wraps, reason = "judges may fail")]
    fn judge(plan: &Plan) -> Result<Score, Infallible> {
        let cost = |(name, kind): (&String, &Kind)| {
            let layer: i32 = name.strip_prefix("layer").unwrap().parse().unwrap();
            if *kind == Kind::Int8 {
                2.0_f64.powi(-layer)
            } else {
                0.0
            }
        };
        let value = plan.kinds.iter().map(cost).sum();
        Ok(Score { value, error: value })
    }

    fn n_int8(outcome: &Outcome) -> usize {
        outcome
            .plan
            .kinds
            .values()
            .filter(|kind| **kind == Kind::Int8)
            .count()
    }

    #[test]
    fn the_worst_layers_give_way_and_no_more() {
        let found = |limit: &str| {
            let budget = Budget::from_text(&format!("relative={limit}")).unwrap();
            search(&candidates(8), &Plan::default(), &budget, &mut judge).unwrap()
        };
        let all = found("2");
        assert_eq!((all.is_met, n_int8(&all)), (true, 8));
        let some = found("0.26");
        assert_eq!((some.is_met, n_int8(&some)), (true, 5));
        assert_eq!(some.plan.kind("layer2"), Kind::Float);
        assert_eq!(some.plan.kind("layer3"), Kind::Int8);
        assert_eq!(some.sensitivity[0].0, "layer0");
        let none = found("0");
        assert_eq!((none.is_met, n_int8(&none)), (true, 0));
        assert!(!found("-1").is_met);
    }

    #[test]
    fn what_saves_little_gives_way_first() {
        let mut candidates = candidates(3);
        candidates[2].benefit = 0.01;
        let budget = Budget::from_text("relative=1.6").unwrap();
        let outcome = search(&candidates, &Plan::default(), &budget, &mut judge).unwrap();
        assert_eq!(outcome.plan.kind("layer2"), Kind::Float);
        assert_eq!(outcome.plan.kind("layer0"), Kind::Int8);
    }

    #[test]
    fn fixed_layers_stay() {
        let fixed = Plan::default().with("layer0", Kind::Int8);
        let budget = Budget::from_text("relative=0.1").unwrap();
        let outcome = search(&candidates(4)[1..], &fixed, &budget, &mut judge).unwrap();
        assert!(!outcome.is_met);
        assert_eq!(outcome.plan.kind("layer0"), Kind::Int8);
    }
}
