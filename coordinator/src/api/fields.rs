//! The fields of a JSON object, taken one by one.
//!
//! Values stay text until somebody asks for them as what they should be. So a wrong value is named
//! with its field, what nobody asked for costs nothing and is known by name, and a body cannot
//! become much larger in memory than it was on the wire.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::api::error::ApiError;

/// Fields an object may have.
const FIELDS_MAX: usize = 256;
/// Items of a list of objects.
const ITEMS_MAX: usize = 16_384;
/// Bytes of a value that is kept as it is.
const VALUE_BYTES_MAX: usize = 1 << 20;

/// An object's fields that nobody has taken yet.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    /// Where the object stands: `messages[2].`, or nothing.
    place: String,
    fields: Vec<(Cow<'a, str>, &'a RawValue)>,
}

impl<'a> Fields<'a> {
    /// A body's.
    pub(super) fn of_body(body: &'a [u8]) -> Result<Self, ApiError> {
        let wrong = |message| ApiError::Invalid { param: None, message };
        let text = std::str::from_utf8(body)
            .map_err(|_| wrong("the body is not valid UTF-8".to_owned()))?;
        let object: Object<'a> = serde_json::from_str(text)
            .map_err(|error| wrong(format!("the body is not a JSON object: {error}")))?;
        Ok(Self { place: String::new(), fields: object.0 })
    }

    /// Those of an object inside of another.
    pub(super) fn of_item(place: &str, item: &'a RawValue) -> Result<Self, ApiError> {
        let object: Object<'a> =
            serde_json::from_str(item.get()).map_err(|error| wrong(place, &error))?;
        Ok(Self { place: format!("{place}."), fields: object.0 })
    }

    /// A field's name as errors give it.
    pub(super) fn name(&self, field: &str) -> String {
        format!("{}{field}", self.place)
    }

    /// A field that was not null, as text. The last one counts, as in most parsers.
    pub(super) fn raw(&mut self, field: &str) -> Option<&'a RawValue> {
        let mut found = None;
        self.fields.retain(|(name, value)| {
            let is_it = name == field;
            if is_it {
                found = Some(*value);
            }
            !is_it
        });
        found.filter(|value| value.get() != "null")
    }

    /// A field as what it should be.
    pub(super) fn take<T: Deserialize<'a>>(&mut self, field: &str) -> Result<Option<T>, ApiError> {
        let Some(value) = self.raw(field) else { return Ok(None) };
        let parsed = serde_json::from_str(value.get());
        parsed.map(Some).map_err(|error| wrong(&self.name(field), &error))
    }

    /// A field of any kind.
    pub(super) fn value(&mut self, field: &str) -> Result<Option<Value>, ApiError> {
        let Some(value) = self.raw(field) else { return Ok(None) };
        let name = self.name(field);
        if value.get().len() > VALUE_BYTES_MAX {
            return Err(ApiError::invalid(name, "this is too large"));
        }
        serde_json::from_str(value.get()).map(Some).map_err(|error| wrong(&name, &error))
    }

    /// A finite number.
    pub(super) fn number(&mut self, field: &str) -> Result<Option<f64>, ApiError> {
        let number: Option<f64> = self.take(field)?;
        match number {
            Some(number) if !number.is_finite() => {
                Err(ApiError::invalid(self.name(field), "this must be a finite number"))
            }
            number => Ok(number),
        }
    }

    /// A whole number, also written as `1.0`; what is beyond the type becomes its greatest or least.
    pub(super) fn integer(&mut self, field: &str) -> Result<Option<i64>, ApiError> {
        let Some(number) = self.take::<serde_json::Number>(field)? else { return Ok(None) };
        if let Some(integer) = number.as_i64() {
            return Ok(Some(integer));
        }
        match number.as_f64() {
            #[expect(clippy::cast_possible_truncation, reason = "saturates, as is promised")]
            Some(number) if number.fract() == 0.0 => Ok(Some(number as i64)),
            _ => Err(ApiError::invalid(self.name(field), "this must be an integer")),
        }
    }

    /// True or false; false where it is missing.
    pub(super) fn flag(&mut self, field: &str) -> Result<bool, ApiError> {
        Ok(self.take(field)?.unwrap_or(false))
    }

    /// A list of objects or other items, still as text.
    pub(super) fn items(&mut self, field: &str) -> Result<Option<Vec<&'a RawValue>>, ApiError> {
        let Some(value) = self.raw(field) else { return Ok(None) };
        let items = items(value).map_err(|error| wrong(&self.name(field), &error))?;
        Ok(Some(items))
    }

    /// Names of the fields that nobody took and that said something.
    pub(super) fn left(&self) -> impl Iterator<Item = &str> {
        let said = self.fields.iter().filter(|(_, value)| value.get() != "null");
        said.map(|(name, _)| name.as_ref())
    }
}

/// The items of a list, still as text.
pub(super) fn items(list: &RawValue) -> serde_json::Result<Vec<&RawValue>> {
    let items: Items<'_> = serde_json::from_str(list.get())?;
    Ok(items.0)
}

/// What is wrong with a value; where in it is of no use to anybody.
fn wrong(name: &str, error: &serde_json::Error) -> ApiError {
    let mut text = error.to_string();
    if let Some(place) = text.rfind(" at line ") {
        text.truncate(place);
    }
    let text: String = text.chars().take(300).collect();
    ApiError::invalid(name, format!("`{name}`: {text}"))
}

struct Object<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

struct Items<'a>(Vec<&'a RawValue>);

/// A field's name, without a copy where it is written plainly.
struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some((Name(name), value)) = map.next_entry()? {
                    if fields.len() == FIELDS_MAX {
                        return Err(A::Error::custom("an object has too many fields"));
                    }
                    fields.push((name, value));
                }
                Ok(Object(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

impl<'de> Deserialize<'de> for Items<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Items<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element()? {
                    if items.len() == ITEMS_MAX {
                        return Err(A::Error::custom("a list has too many items"));
                    }
                    items.push(item);
                }
                Ok(Items(items))
            }
        }
        deserializer.deserialize_seq(List)
    }
}

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}
