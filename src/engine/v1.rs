//! Headers of format version 1: one binding of the dims, and pointers that do not say whether
//! they are written.

use serde_json::{Value, json};

use super::{Header, v2};

pub const VERSION: u32 = 1;

/// The header as it is now.
///
/// # Errors
/// If the text is no header of version 1.
pub fn header(text: &[u8]) -> Result<Header, serde_json::Error> {
    let mut header: Value = serde_json::from_slice(text)?;
    if let Some(fields) = header.as_object_mut() {
        let mut take = |name: &str| fields.remove(name).unwrap_or(Value::Null);
        let profile = json!({ "inputs": take("inputs"), "outputs": take("outputs") });
        fields.insert("profiles".to_owned(), json!([profile]));
    }
    for program in entries(&mut header, "programs") {
        if let Some(fields) = program.as_object_mut() {
            fields.insert("profile".to_owned(), json!(0));
        }
        for launch in entries(program, "launches") {
            for arg in entries(launch, "args") {
                say_access(arg);
            }
        }
    }
    v2::upgraded(header)
}

/// Constants are never written; of others it is not known.
fn say_access(arg: &mut Value) {
    let Some(place) = arg.as_object_mut().and_then(|fields| fields.remove("pointer")) else {
        return;
    };
    let access = if place["memory"] == "weights" {
        "reads"
    } else {
        "writes"
    };
    *arg = json!({ access: place });
}

fn entries<'a>(value: &'a mut Value, name: &str) -> impl Iterator<Item = &'a mut Value> {
    value
        .get_mut(name)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::super::{Arg, Memory, read};

    /// A file that version 0.1.0 wrote, its weights zeroed and its kernels cut short.
    const FILE: &[u8] = include_bytes!("../../tests/engines/v1.engine");

    #[test]
    fn files_of_version_1_are_read() {
        let engine = read(FILE).unwrap();
        let header = &engine.header;
        assert_eq!(header.profiles.len(), 1);
        assert_eq!(header.profiles[0].inputs[0].dims, [1, 1, 8, 8]);
        let args = header.programs[0].launches.iter().flat_map(|launch| &launch.args);
        let weights_are_read =
            args.filter(|arg| matches!(arg, Arg::Reads(place) if place.memory == Memory::Weights));
        assert!(weights_are_read.count() > 0);
    }
}
