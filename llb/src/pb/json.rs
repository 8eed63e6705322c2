//! A definition as people read it: the shape of `buildctl debug dump-llb`.
//!
//! ```text
//! {"Op":{"inputs":[{"digest":"sha256:…","index":0}],"Op":{"exec":{…}},"platform":{…},"constraints":{}},
//!  "Digest":"sha256:…","OpMetadata":{"description":{…}},"Source":[{"filename":"Dockerfile","start":2,"end":2}]}
//! ```
//!
//! - One line for each op, inputs before users; the last is the result, whose `Op.Op` is empty.
//! - `Op` is the `pb.Op` message under the names of `ops.proto`. What is empty, zero or false is left out,
//!   but for indexes, of which 0 is one. Enumerations are numbers, bytes are base64, and an alternative
//!   stands in an object with the name of the choice (`Op`, `Action`, `User`).
//! - `Digest` names the op, `OpMetadata` is what the digest does not cover, and `Source` says from which
//!   lines it comes.

use std::borrow::Cow;

use prost::Message as _;

use super::definition::message;
use super::schema::{Field, Kind, METADATA, Message, OP, Reader, Value};
use super::wire;
use crate::{Definition, Digest, base64};

/// The lines of a definition; none when it has no result.
pub fn definition_json(definition: &Definition) -> Vec<String> {
    let message = message(definition);
    let source = message.source.unwrap_or_default();
    let line = |op: &Vec<u8>| {
        let digest = Digest::of(op).to_string();
        let mut line = String::from("{\"Op\":");
        write_message(&mut line, &OP, op);
        line.push_str(",\"Digest\":");
        write_text(&mut line, &digest);
        line.push_str(",\"OpMetadata\":");
        let metadata = message.metadata.get(&digest).cloned().unwrap_or_default();
        write_message(&mut line, &METADATA, &metadata.encode_to_vec());
        if let Some(locations) = source.locations.get(&digest) {
            line.push_str(",\"Source\":");
            write_source(&mut line, locations, &source.infos);
        }
        line.push('}');
        line
    };
    message.def.iter().map(line).collect()
}

fn write_source(out: &mut String, locations: &wire::Locations, infos: &[wire::SourceInfo]) {
    let ranges = locations.locations.iter().flat_map(|location| {
        let info = usize::try_from(location.source_index).ok().and_then(|index| infos.get(index));
        location.ranges.iter().map(move |range| (info, range))
    });
    write_list(out, '[', ranges, |out, (info, range)| {
        let line = |position: &Option<wire::Position>| {
            position.as_ref().map_or(0, |position| position.line).to_string()
        };
        out.push_str("{\"filename\":");
        write_text(out, info.map_or("", |info| &info.filename));
        out.extend([",\"start\":", &line(&range.start), ",\"end\":", &line(&range.end), "}"]);
    });
    out.push(']');
}

/// Writes `open` and the items with commas between them.
fn write_list<T>(
    out: &mut String,
    open: char,
    items: impl IntoIterator<Item = T>,
    mut write: impl FnMut(&mut String, T),
) {
    out.push(open);
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write(out, item);
    }
}

fn write_message(out: &mut String, message: &Message, bytes: &[u8]) {
    let is_shown =
        |field: &&Field| field.shows_zero || Message::values(field, bytes).next().is_some();
    // The alternatives of a choice are next to each other in the table.
    let groups = message.fields.chunk_by(|a, b| a.choice.is_some() && a.choice == b.choice);
    let groups = groups.filter(|group| group[0].choice.is_some() || is_shown(&&group[0]));
    write_list(out, '{', groups, |out, group| match group[0].choice {
        None => write_field(out, &group[0], bytes),
        Some(choice) => {
            write_text(out, choice);
            out.push(':');
            let chosen = group.iter().filter(is_shown);
            write_list(out, '{', chosen, |out, field| write_field(out, field, bytes));
            out.push('}');
        }
    });
    out.push('}');
}

/// Writes the name and the value of a field of the message in `bytes`.
fn write_field(out: &mut String, field: &Field, bytes: &[u8]) {
    write_text(out, field.name);
    out.push(':');
    let values = Message::values(field, bytes);
    if let Kind::Map(kind) = field.kind {
        write_list(out, '{', values, |out, value| write_entry(out, *kind, value));
        out.push('}');
    } else if field.is_list {
        write_list(out, '[', values.flat_map(|value| unpacked(field.kind, value)), |out, value| {
            write_value(out, field.kind, value);
        });
        out.push(']');
    } else {
        write_value(out, field.kind, values.last().unwrap_or(Value::Number(0)));
    }
}

/// Writes an entry of a map: a message of a key and a value.
fn write_entry(out: &mut String, kind: Kind, entry: Value<'_>) {
    let Value::Bytes(entry) = entry else { return };
    let (mut key, mut value) = (Value::Bytes(&[]), Value::Bytes(&[]));
    for (number, found) in (Reader { bytes: entry }).map_while(Result::ok) {
        match number {
            1 => key = found,
            _ => value = found,
        }
    }
    write_value(out, Kind::Text, key);
    out.push(':');
    write_value(out, kind, value);
}

/// A value of a list; numbers may be several of them.
fn unpacked(kind: Kind, value: Value<'_>) -> Vec<Value<'_>> {
    match (kind, value) {
        (Kind::Number, Value::Bytes(bytes)) => {
            let mut reader = Reader { bytes };
            std::iter::from_fn(|| reader.number().map(Value::Number)).collect()
        }
        _ => vec![value],
    }
}

fn write_value(out: &mut String, kind: Kind, value: Value<'_>) {
    match (kind, value) {
        (Kind::Bool, Value::Number(number)) => {
            out.push_str(if number == 0 { "false" } else { "true" })
        }
        (_, Value::Number(number)) => out.push_str(&number.cast_signed().to_string()),
        (Kind::Message(message), Value::Bytes(bytes)) => write_message(out, message, bytes),
        (Kind::Bytes, Value::Bytes(bytes)) => write_text(out, &base64::encode(bytes)),
        (_, Value::Bytes(bytes)) => write_text(out, &String::from_utf8_lossy(bytes)),
    }
}

fn write_text(out: &mut String, text: &str) {
    let quoted = serde_json::to_string(text);
    out.push_str(&quoted.map_or(Cow::Borrowed("\"\""), Cow::Owned));
}
