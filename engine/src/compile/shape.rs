//! What a step kind takes and gives, read once from its JSON Schemas.
use crate::step::Kind;
use indexmap::IndexMap;
use serde_json::Value as Json;
use std::cell::OnceCell;

/// How deep references of a recursive schema are followed; below, anything goes.
const MAX_REFERENCES: usize = 8;

/// A kind with its schemas read.
pub(super) struct KindInfo {
    pub(super) kind: Kind,
    pub(super) params: Fields,
    output: OnceCell<Shape>,
}

impl std::fmt::Debug for KindInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("KindInfo").field(&self.kind.name).finish()
    }
}

impl KindInfo {
    pub(super) fn new(kind: &Kind) -> Self {
        let schema = (kind.params_schema)();
        let shape = Shape::read(&schema, &schema, 0);
        let params = if let Shape::Map(fields) = shape {
            fields
        } else {
            Fields::default()
        };
        Self {
            kind: kind.clone(),
            params,
            output: OnceCell::new(),
        }
    }

    pub(super) fn output(&self) -> &Shape {
        self.output.get_or_init(|| {
            let schema = (self.kind.output_schema)();
            Shape::read(&schema, &schema, 0)
        })
    }
}

/// The shape of a value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Shape {
    Any,
    Null,
    Sql,
    Target,
    Expression { names: Vec<String> },
    Text,
    Duration,
    Size,
    String,
    Words(Vec<String>),
    Integer { min: Option<f64>, max: Option<f64> },
    Number,
    Boolean,
    List(Box<Shape>),
    Map(Fields),
    OneOf(Vec<Shape>),
}

/// The members of a map.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Fields {
    pub(super) known: IndexMap<String, Field>,
    /// The shape of all others; `None` where there may be none.
    pub(super) rest: Option<Box<Shape>>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Field {
    pub(super) shape: Shape,
    pub(super) required: bool,
}

impl Shape {
    pub(super) fn read(schema: &Json, root: &Json, depth: usize) -> Self {
        let Some(object) = schema.as_object() else {
            return Self::Any;
        };
        if let Some(reference) = object.get("$ref").and_then(Json::as_str) {
            let target = reference
                .strip_prefix('#')
                .and_then(|pointer| root.pointer(pointer));
            return match target {
                Some(target) if depth < MAX_REFERENCES => Self::read(target, root, depth + 1),
                _ => Self::Any,
            };
        }
        let optional = |shape: Self| {
            let null = object
                .get("type")
                .and_then(Json::as_array)
                .is_some_and(|types| types.iter().any(|name| name == "null"));
            if null {
                Self::one_of(vec![shape, Self::Null])
            } else {
                shape
            }
        };
        if let Some(marker) = object.get("x-windlass").and_then(Json::as_str) {
            return optional(match marker {
                "sql" => Self::Sql,
                "target" => Self::Target,
                "expression" => Self::Expression {
                    names: names(schema),
                },
                "text" => Self::Text,
                "duration" => Self::Duration,
                "size" => Self::Size,
                _ => Self::Any,
            });
        }
        if let Some(variants) = ["oneOf", "anyOf"]
            .iter()
            .find_map(|key| object.get(*key)?.as_array())
        {
            let mut shapes: Vec<Self> = variants
                .iter()
                .map(|variant| Self::read(variant, root, depth))
                .collect();
            let extra = names(schema);
            for shape in &mut shapes {
                if let Self::Expression { names } = shape {
                    names.extend(extra.iter().cloned());
                }
            }
            // Members beside `oneOf` (a tagged enum with common fields) hold for every variant.
            if object.contains_key("properties") {
                let common = Self::read_map(object, root, depth);
                for shape in &mut shapes {
                    if let Self::Map(fields) = shape {
                        for (name, field) in &common.known {
                            fields
                                .known
                                .entry(name.clone())
                                .or_insert_with(|| field.clone());
                        }
                    }
                }
            }
            return Self::one_of(shapes);
        }
        if let Some([only]) = object
            .get("allOf")
            .and_then(Json::as_array)
            .map(Vec::as_slice)
        {
            return Self::read(only, root, depth);
        }
        if let Some(word) = object.get("const") {
            return word
                .as_str()
                .map_or(Self::Any, |word| Self::Words(vec![word.to_owned()]));
        }
        if let Some(words) = object.get("enum").and_then(Json::as_array) {
            let texts: Vec<String> = words
                .iter()
                .filter_map(Json::as_str)
                .map(str::to_owned)
                .collect();
            let shape = if texts.is_empty() {
                Self::Any
            } else {
                Self::Words(texts)
            };
            return if words.iter().any(Json::is_null) {
                Self::one_of(vec![shape, Self::Null])
            } else {
                shape
            };
        }
        let types: Vec<&str> = match object.get("type") {
            Some(Json::String(name)) => vec![name],
            Some(Json::Array(names)) => names.iter().filter_map(Json::as_str).collect(),
            _ if object.contains_key("properties") => vec!["object"],
            _ => return Self::Any,
        };
        let shapes = types.into_iter().map(|name| match name {
            "null" => Self::Null,
            "boolean" => Self::Boolean,
            "integer" => Self::Integer {
                min: object.get("minimum").and_then(Json::as_f64),
                max: object.get("maximum").and_then(Json::as_f64),
            },
            "number" => Self::Number,
            "string" => Self::String,
            "array" => {
                let items = object
                    .get("items")
                    .map_or(Self::Any, |items| Self::read(items, root, depth));
                Self::List(Box::new(items))
            }
            "object" => Self::Map(Self::read_map(object, root, depth)),
            _ => Self::Any,
        });
        Self::one_of(shapes.collect())
    }

    fn read_map(object: &serde_json::Map<String, Json>, root: &Json, depth: usize) -> Fields {
        let required: Vec<&str> = object
            .get("required")
            .and_then(Json::as_array)
            .map(|names| names.iter().filter_map(Json::as_str).collect())
            .unwrap_or_default();
        let properties = object.get("properties").and_then(Json::as_object);
        let known: IndexMap<String, Field> = properties
            .into_iter()
            .flatten()
            .map(|(name, schema)| {
                let mut shape = Self::read(schema, root, depth);
                // A default makes a key optional whatever `required` says.
                let required = required.contains(&name.as_str()) && schema.get("default").is_none();
                if let Self::Expression { names: own } = &mut shape
                    && own.is_empty()
                {
                    *own = names(schema);
                }
                (name.clone(), Field { shape, required })
            })
            .collect();
        let rest = match object.get("additionalProperties") {
            Some(Json::Bool(false)) => None,
            Some(Json::Bool(true)) => Some(Box::new(Self::Any)),
            Some(schema) => Some(Box::new(Self::read(schema, root, depth))),
            // A struct has the members that it declares; a map without any takes all.
            None if known.is_empty() => Some(Box::new(Self::Any)),
            None => None,
        };
        Fields { known, rest }
    }

    fn one_of(shapes: Vec<Self>) -> Self {
        let mut flat: Vec<Self> = Vec::with_capacity(shapes.len());
        for shape in shapes {
            if let Self::OneOf(inner) = shape {
                flat.extend(inner);
            } else {
                flat.push(shape);
            }
        }
        let mut words = Vec::new();
        flat.retain(|shape| {
            if let Self::Words(more) = shape {
                words.extend(more.iter().cloned());
            }
            !matches!(shape, Self::Words(_))
        });
        if !words.is_empty() {
            flat.insert(0, Self::Words(words));
        }
        if flat.contains(&Self::Any) {
            return Self::Any;
        }
        match flat.len() {
            0 => Self::Any,
            1 => flat.swap_remove(0),
            _ => Self::OneOf(flat),
        }
    }

    /// In words, for messages.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Any => "a value".to_owned(),
            Self::Null => "nothing".to_owned(),
            Self::Sql => "SQL".to_owned(),
            Self::Target => "the name of a target".to_owned(),
            Self::Expression { .. } => "an expression".to_owned(),
            Self::Text | Self::String => "text".to_owned(),
            Self::Duration => "a duration".to_owned(),
            Self::Size => "a size".to_owned(),
            Self::Words(words) if words.len() == 1 => format!("`{}`", words.join("")),
            Self::Words(words) => format!("one of {}", words.join(", ")),
            Self::Integer { .. } => "a whole number".to_owned(),
            Self::Number => "a number".to_owned(),
            Self::Boolean => "true or false".to_owned(),
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) => "a map".to_owned(),
            Self::OneOf(shapes) => {
                let mut all: Vec<String> = Vec::new();
                for shape in shapes.iter().filter(|shape| **shape != Self::Null) {
                    let words = shape.words();
                    if !all.contains(&words) {
                        all.push(words);
                    }
                }
                all.join(" or ")
            }
        }
    }

    /// The names of its members, where it is a map that declares them.
    pub(super) fn members(&self) -> Vec<String> {
        if let Self::Map(fields) = self {
            fields.known.keys().cloned().collect()
        } else {
            Vec::new()
        }
    }

    /// Follows members; `Err` holds the place of the first that cannot be and what there is instead.
    pub(super) fn member(&self, path: &[String]) -> Result<(), (usize, Vec<&str>)> {
        let mut shape = self;
        for (at, name) in path.iter().enumerate() {
            if let Self::OneOf(shapes) = shape {
                let mut others = shapes.iter().filter(|shape| **shape != Self::Null);
                match (others.next(), others.next()) {
                    (Some(only), None) => shape = only,
                    _ => return Ok(()),
                }
            }
            let Self::Map(fields) = shape else {
                return Ok(());
            };
            shape = match (fields.known.get(name), &fields.rest) {
                (Some(field), _) => &field.shape,
                (None, Some(rest)) => rest,
                (None, None) => {
                    return Err((at, fields.known.keys().map(String::as_str).collect()));
                }
            };
        }
        Ok(())
    }
}

fn names(schema: &Json) -> Vec<String> {
    schema
        .get("x-windlass-names")
        .and_then(Json::as_array)
        .map(|names| {
            names
                .iter()
                .filter_map(Json::as_str)
                .map(str::to_owned)
                .collect()
        })
        .unwrap_or_default()
}
