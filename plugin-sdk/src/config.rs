// SPDX-License-Identifier: Apache-2.0
//! Configuration of a plugin: JSON in, a typed value or a list of everything that is wrong out, and the schema that
//! operators and the host's load gate see. `#[derive(Config)]` does all of it for structs and for enums without fields.

use std::collections::BTreeMap;
use std::fmt::Display;

pub use serde_json::Value;

/// One thing wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Issue {
    /// Where: `keys[2].sha256`; empty for the whole.
    pub path: String,
    /// What is wrong, and what to write instead.
    pub message: String,
}

impl Issue {
    /// An issue with the value at `path`.
    #[must_use]
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }
}

/// A type that can be written in a policy file. Derive it; implement it by hand only for a leaf with a form of its own.
pub trait Config: Sized {
    /// What operators may write.
    const SCHEMA: &'static Schema;
    /// Whether a field of this type may be left out.
    const OPTIONAL: bool = false;

    /// Reads the value; what is wrong goes to the reader, and then the answer is none.
    fn read(value: &Value, reader: &mut Reader) -> Option<Self>;

    /// The value of a field that was left out, if that is allowed.
    #[must_use]
    fn absent() -> Option<Self> {
        None
    }

    /// What `min` and `max` bound: a number itself, or the length of a text, list or map.
    #[must_use]
    fn measure(&self) -> Option<f64> {
        None
    }
}

/// The shape of a configuration, as a constant.
#[derive(Debug, Clone, Copy)]
pub enum Schema {
    /// Anything.
    Any,
    /// true or false.
    Boolean,
    /// A whole number from `min` (JSON, "" for no bound).
    Integer {
        /// Least value.
        min: &'static str,
    },
    /// A number.
    Number,
    /// A text.
    Text,
    /// One of these texts.
    Choice(&'static [&'static str]),
    /// A list; of exactly `length` elements if there is one.
    List {
        /// Its elements.
        of: &'static Self,
        /// "" for any.
        length: &'static str,
    },
    /// A table with any names.
    Map(&'static Self),
    /// A table with these names.
    Object(&'static [Field]),
}

/// A field of an object.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// As the operator writes it.
    pub name: &'static str,
    /// What it means.
    pub about: &'static str,
    /// Its shape.
    pub schema: &'static Schema,
    /// Whether it may not be left out.
    pub required: bool,
    /// Default as JSON, "" if there is none or it is computed.
    pub default: &'static str,
    /// Least number or length as JSON, "" for none.
    pub min: &'static str,
    /// Greatest number or length as JSON, "" for none.
    pub max: &'static str,
}

/// Reads a configuration and gathers what is wrong with it.
#[derive(Debug, Default)]
pub struct Reader {
    path: String,
    issues: Vec<Issue>,
}

impl Reader {
    /// Reads a whole configuration.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn read<C: Config>(value: &Value) -> Result<C, Vec<Issue>> {
        let mut reader = Self::default();
        match C::read(value, &mut reader) {
            Some(config) if reader.issues.is_empty() => Ok(config),
            _ => Err(reader.issues),
        }
    }

    /// Notes that the value at the current place is wrong.
    pub fn refuse(&mut self, message: impl Into<String>) {
        self.issues.push(Issue::new(self.path.clone(), message));
    }

    /// The members of a table; members that are not in `known` are refused.
    pub fn object<'v>(&mut self, value: &'v Value, known: &[&str]) -> Option<&'v serde_json::Map<String, Value>> {
        let Some(object) = value.as_object() else {
            self.refuse(format!("expected a table, found {}", kind(value)));
            return None;
        };
        for name in object.keys().filter(|name| !known.contains(&name.as_str())) {
            let known = if known.is_empty() { "nothing".to_owned() } else { known.join(", ") };
            self.within(format_args!(".{name}"), |reader| reader.refuse(format!("unknown; known here: {known}")));
        }
        Some(object)
    }

    /// Reads a member of a table. `default` gives the value of one that was left out; `min` and `max` are JSON numbers or "".
    pub fn member<T: Config>(
        &mut self,
        object: &serde_json::Map<String, Value>,
        name: &str,
        default: fn() -> Option<T>,
        min: &str,
        max: &str,
    ) -> Option<T> {
        self.within(format_args!(".{name}"), |reader| {
            let Some(value) = object.get(name) else {
                let value = default();
                if value.is_none() {
                    reader.refuse("missing");
                }
                return value;
            };
            let value = T::read(value, reader)?;
            reader.check_bounds(&value, min, max);
            Some(value)
        })
    }

    /// The index of a text among `known`.
    pub fn choice(&mut self, value: &Value, known: &[&str]) -> Option<usize> {
        let found = value.as_str().and_then(|text| known.iter().position(|name| *name == text));
        if found.is_none() {
            self.refuse(format!("expected one of {}, found {value}", known.join(", ")));
        }
        found
    }

    /// Reads at a deeper place: `step` is `.name` or `[index]`.
    pub fn within<R>(&mut self, step: impl Display, read: impl FnOnce(&mut Self) -> R) -> R {
        let length = self.path.len();
        let step = step.to_string();
        self.path.push_str(if length == 0 { step.trim_start_matches('.') } else { &step });
        let result = read(self);
        self.path.truncate(length);
        result
    }

    fn check_bounds<T: Config>(&mut self, value: &T, min: &str, max: &str) {
        let (Some(measure), min, max) = (value.measure(), min.parse::<f64>(), max.parse::<f64>()) else { return };
        if min.as_ref().is_ok_and(|min| measure < *min) || max.as_ref().is_ok_and(|max| measure > *max) {
            let what = if matches!(T::SCHEMA, Schema::Integer { .. } | Schema::Number) { "" } else { "a length of " };
            let range = match (min, max) {
                (Ok(min), Ok(max)) => format!("{min} to {max}"),
                (Ok(min), Err(_)) => format!("at least {min}"),
                (_, max) => format!("at most {}", max.unwrap_or_default()),
            };
            self.refuse(format!("expected {what}{range}, found {measure}"));
        }
    }
}

/// A plugin that takes no configuration.
impl Config for () {
    const SCHEMA: &'static Schema = &Schema::Object(&[]);

    fn read(value: &Value, reader: &mut Reader) -> Option<Self> {
        reader.object(value, &[]).map(|_| ())
    }
}

impl Config for bool {
    const SCHEMA: &'static Schema = &Schema::Boolean;

    fn read(value: &Value, reader: &mut Reader) -> Option<Self> {
        leaf(value.as_bool(), "true or false", value, reader)
    }
}

impl Config for f64 {
    const SCHEMA: &'static Schema = &Schema::Number;

    fn read(value: &Value, reader: &mut Reader) -> Option<Self> {
        leaf(value.as_f64(), "a number", value, reader)
    }

    fn measure(&self) -> Option<f64> {
        Some(*self)
    }
}

impl Config for String {
    const SCHEMA: &'static Schema = &Schema::Text;

    fn read(value: &Value, reader: &mut Reader) -> Option<Self> {
        leaf(value.as_str().map(str::to_owned), "a text", value, reader)
    }

    fn measure(&self) -> Option<f64> {
        Some(length(self.chars().count()))
    }
}

impl Config for Value {
    const SCHEMA: &'static Schema = &Schema::Any;

    fn read(value: &Value, _: &mut Reader) -> Option<Self> {
        Some(value.clone())
    }
}

macro_rules! integers {
    ($($integer:ty, $min:literal, $words:literal;)*) => {$(
        impl Config for $integer {
            const SCHEMA: &'static Schema = &Schema::Integer { min: $min };

            fn read(value: &Value, reader: &mut Reader) -> Option<Self> {
                let number = value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from));
                let found = number.and_then(|number| Self::try_from(number).ok());
                if found.is_none() && value.is_number() {
                    reader.refuse(concat!("expected ", $words));
                    return None;
                }
                leaf(found, $words, value, reader)
            }

            fn measure(&self) -> Option<f64> {
                #[allow(clippy::cast_precision_loss, clippy::cast_lossless, reason = "only compared with bounds")]
                Some(*self as f64)
            }
        }
    )*};
}

integers! {
    u16, "0", "a whole number from 0 to 65535";
    u32, "0", "a whole number from 0 to 4294967295";
    u64, "0", "a whole number of at least 0";
    i64, "", "a whole number";
}

impl<T: Config> Config for Option<T> {
    const SCHEMA: &'static Schema = T::SCHEMA;
    const OPTIONAL: bool = true;

    fn read(value: &Value, reader: &mut Reader) -> Option<Self> {
        if value.is_null() { Some(None) } else { T::read(value, reader).map(Some) }
    }

    fn absent() -> Option<Self> {
        Some(None)
    }

    fn measure(&self) -> Option<f64> {
        self.as_ref().and_then(T::measure)
    }
}

impl<T: Config> Config for Vec<T> {
    const SCHEMA: &'static Schema = &Schema::List { of: T::SCHEMA, length: "" };

    fn read(value: &Value, reader: &mut Reader) -> Option<Self> {
        let elements = leaf(value.as_array(), "a list", value, reader)?;
        let element = |(index, element)| reader.within(format_args!("[{index}]"), |reader| T::read(element, reader));
        // Every element is read, so that every issue is found.
        let read: Vec<Option<T>> = elements.iter().enumerate().map(element).collect();
        read.into_iter().collect()
    }

    fn measure(&self) -> Option<f64> {
        Some(length(self.len()))
    }
}

impl<T: Config> Config for [T; 2] {
    const SCHEMA: &'static Schema = &Schema::List { of: T::SCHEMA, length: "2" };

    fn read(value: &Value, reader: &mut Reader) -> Option<Self> {
        let list = Vec::<T>::read(value, reader)?;
        leaf(Self::try_from(list).ok(), "a list of two", value, reader)
    }
}

impl<T: Config> Config for BTreeMap<String, T> {
    const SCHEMA: &'static Schema = &Schema::Map(T::SCHEMA);

    fn read(value: &Value, reader: &mut Reader) -> Option<Self> {
        let object = leaf(value.as_object(), "a table", value, reader)?;
        let entry = |(name, value): (&String, &Value)| {
            let value = reader.within(format_args!(".{name}"), |reader| T::read(value, reader));
            value.map(|value| (name.clone(), value))
        };
        let read: Vec<Option<(String, T)>> = object.iter().map(entry).collect();
        read.into_iter().collect()
    }

    fn measure(&self) -> Option<f64> {
        Some(length(self.len()))
    }
}

fn leaf<T>(found: Option<T>, expected: &str, value: &Value, reader: &mut Reader) -> Option<T> {
    if found.is_none() {
        reader.refuse(format!("expected {expected}, found {}", kind(value)));
    }
    found
}

/// Names the value without showing it: a configuration may hold what should not be in a log.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a table",
    }
}

fn length(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
