//! `tojson` as Hugging Face's templates expect it: what Python's `json.dumps` would write.

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind, State};

use crate::prompt::guard::is_candidate;

/// Deeper values are refused.
const DEPTH_MAX: usize = 64;
/// Fuel for every value: much more than an instruction's, for it is much more work.
const FUEL: u64 = 4;
/// Longer texts are refused.
const BYTES_MAX: usize = 32 << 20;
/// Wider indents are refused.
const INDENT_MAX: usize = 16;

/// The filter. Non-ASCII stays as it is, `, ` and `: ` separate, unless said otherwise.
pub(crate) fn tojson(
    state: &State<'_, '_>,
    value: &Value,
    options: &Kwargs,
) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let ascii: Option<bool> = options.get("ensure_ascii")?;
    let sorted: Option<bool> = options.get("sort_keys")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    options.assert_all_used()?;
    if indent.is_some_and(|indent| indent > INDENT_MAX) {
        return Err(refused("tojson: the indent is too wide"));
    }
    let (mut item, mut key) = if indent.is_some() { (",", ": ") } else { (", ", ": ") };
    if let Some([items, keys]) = separators.as_deref() {
        (item, key) = (items, keys);
    }
    let mut dumps = Dumps {
        state,
        text: String::new(),
        indent,
        ascii: ascii.unwrap_or(false),
        sorted: sorted.unwrap_or(false),
        item,
        key,
    };
    dumps.value(value, 0)?;
    Ok(Value::from_safe_string(dumps.text))
}

struct Dumps<'a> {
    state: &'a State<'a, 'a>,
    text: String,
    indent: Option<usize>,
    ascii: bool,
    sorted: bool,
    item: &'a str,
    key: &'a str,
}

impl Dumps<'_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > DEPTH_MAX || self.text.len() > BYTES_MAX {
            return Err(refused("tojson: the value is too large"));
        }
        self.state.consume_fuel(FUEL)?;
        match value.kind() {
            ValueKind::Undefined | ValueKind::None => self.text.push_str("null"),
            ValueKind::Bool => self.text.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.text.push_str(&value.to_string()),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.list(&items, depth)?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sorted {
                    keys.sort();
                }
                self.map(value, &keys, depth)?;
            }
            _ => return Err(refused("tojson: the value has no JSON form")),
        }
        Ok(())
    }

    fn list(&mut self, items: &[Value], depth: usize) -> Result<(), Error> {
        self.text.push('[');
        for (place, item) in items.iter().enumerate() {
            self.separate(place, depth + 1);
            self.value(item, depth + 1)?;
        }
        self.close(items.is_empty(), depth, ']');
        Ok(())
    }

    fn map(&mut self, map: &Value, keys: &[Value], depth: usize) -> Result<(), Error> {
        self.text.push('{');
        for (place, key) in keys.iter().enumerate() {
            self.separate(place, depth + 1);
            self.string(&key.to_string());
            self.text.push_str(self.key);
            self.value(&map.get_item(key)?, depth + 1)?;
        }
        self.close(keys.is_empty(), depth, '}');
        Ok(())
    }

    fn separate(&mut self, place: usize, depth: usize) {
        if place > 0 {
            self.text.push_str(self.item);
        }
        self.line(depth);
    }

    fn close(&mut self, empty: bool, depth: usize, bracket: char) {
        if !empty {
            self.line(depth);
        }
        self.text.push(bracket);
    }

    fn line(&mut self, depth: usize) {
        if let Some(indent) = self.indent {
            self.text.push('\n');
            self.text.extend(std::iter::repeat_n(' ', indent * depth));
        }
    }

    fn string(&mut self, text: &str) {
        let quoted = serde_json::Value::from(text).to_string();
        if !self.ascii {
            self.text.push_str(&quoted);
            return;
        }
        for letter in quoted.chars() {
            // A mark is taken out again: it must stay what it is.
            if letter.is_ascii() || is_candidate(letter) {
                self.text.push(letter);
            } else {
                for unit in letter.encode_utf16(&mut [0; 2]) {
                    self.text.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
}

fn refused(what: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, what)
}
