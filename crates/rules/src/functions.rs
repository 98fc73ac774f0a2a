//! The functions of the language: one table that the checker, the evaluator and the guide's test
//! all read.

mod convert;
mod numbers;
mod optional;
pub(crate) mod texts;
mod times;

use crate::compare::Budget;
use crate::error::ErrorKind;
use crate::lookup::no_overload;
use crate::value::Value;

/// Most arguments of a function, its receiver included.
pub(crate) const MAX_ARGUMENTS: usize = 4;

/// A form in which a function may be called.
#[derive(Debug, Clone, Copy)]
pub struct Function {
    /// Its name, with its namespace if it has one (`math.abs`).
    pub name: &'static str,
    /// Whether it is called on its first argument (`text.size()`).
    pub is_method: bool,
    /// What it takes, the receiver first.
    pub args: &'static [Kind],
    /// What it gives.
    pub result: Kind,
    pub(crate) builtin: Builtin,
}

/// What an argument may be, or what a result is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any value; as a result, what the arguments make of it.
    Any,
    /// `bool`
    Bool,
    /// `int`
    Int,
    /// `uint`
    Uint,
    /// `double`
    Double,
    /// `string`
    String,
    /// `bytes`
    Bytes,
    /// `timestamp`
    Timestamp,
    /// `duration`
    Duration,
    /// `type`
    Type,
    /// Any list.
    List,
    /// A list of strings.
    Texts,
    /// Any map.
    Map,
    /// An `int`, `uint` or `double`.
    Number,
    /// An optional.
    Optional,
}

impl Kind {
    /// The name that messages and the guide use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Double => "double",
            Self::String => "string",
            Self::Bytes => "bytes",
            Self::Timestamp => "timestamp",
            Self::Duration => "duration",
            Self::Type => "type",
            Self::List => "list",
            Self::Texts => "list(string)",
            Self::Map => "map",
            Self::Number => "number",
            Self::Optional => "optional",
        }
    }
}

impl Function {
    /// The form as the guide writes it: `string.startsWith(string) -> bool`.
    pub fn signature(&self) -> std::string::String {
        let names: Vec<_> = self.args.iter().map(|kind| kind.as_str()).collect();
        let result = self.result.as_str();
        match (self.is_method, names.split_first()) {
            (true, Some((receiver, rest))) => {
                format!("{receiver}.{}({}) -> {result}", self.name, rest.join(", "))
            }
            _ => format!("{}({}) -> {result}", self.name, names.join(", ")),
        }
    }
}

/// What a function does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Builtin {
    Size,
    StartsWith,
    EndsWith,
    Contains,
    Matches,
    ToInt,
    ToUint,
    ToDouble,
    ToString,
    ToBool,
    ToBytes,
    ToTimestamp,
    ToDuration,
    TypeOf,
    Dyn,
    Time(times::Part),
    Lower,
    Upper,
    Trim,
    Split,
    Join,
    Replace,
    Substring,
    CharAt,
    IndexOf,
    LastIndexOf,
    Greatest,
    Least,
    Abs,
    Get,
    OptionalOf,
    OptionalNone,
    HasValue,
    OptionalValue,
    OrValue,
    Or,
}

const fn global(
    name: &'static str,
    args: &'static [Kind],
    result: Kind,
    builtin: Builtin,
) -> Function {
    Function { name, is_method: false, args, result, builtin }
}

const fn method(
    name: &'static str,
    args: &'static [Kind],
    result: Kind,
    builtin: Builtin,
) -> Function {
    Function { name, is_method: true, args, result, builtin }
}

use Kind::{Any, Bool, Bytes, Double, Duration, Int, List, Map, Number, Optional, String, Texts};
use Kind::{Timestamp, Type, Uint};

/// Every form of every function. Macros and operators are not functions.
pub const FUNCTIONS: &[Function] = &[
    global("size", &[String], Int, Builtin::Size),
    global("size", &[Bytes], Int, Builtin::Size),
    global("size", &[List], Int, Builtin::Size),
    global("size", &[Map], Int, Builtin::Size),
    method("size", &[String], Int, Builtin::Size),
    method("size", &[Bytes], Int, Builtin::Size),
    method("size", &[List], Int, Builtin::Size),
    method("size", &[Map], Int, Builtin::Size),
    method("startsWith", &[String, String], Bool, Builtin::StartsWith),
    method("endsWith", &[String, String], Bool, Builtin::EndsWith),
    method("contains", &[String, String], Bool, Builtin::Contains),
    method("matches", &[String, String], Bool, Builtin::Matches),
    global("matches", &[String, String], Bool, Builtin::Matches),
    global("int", &[Number], Int, Builtin::ToInt),
    global("int", &[String], Int, Builtin::ToInt),
    global("int", &[Timestamp], Int, Builtin::ToInt),
    global("uint", &[Number], Uint, Builtin::ToUint),
    global("uint", &[String], Uint, Builtin::ToUint),
    global("double", &[Number], Double, Builtin::ToDouble),
    global("double", &[String], Double, Builtin::ToDouble),
    global("string", &[String], String, Builtin::ToString),
    global("string", &[Bool], String, Builtin::ToString),
    global("string", &[Number], String, Builtin::ToString),
    global("string", &[Bytes], String, Builtin::ToString),
    global("string", &[Timestamp], String, Builtin::ToString),
    global("string", &[Duration], String, Builtin::ToString),
    global("bool", &[Bool], Bool, Builtin::ToBool),
    global("bool", &[String], Bool, Builtin::ToBool),
    global("bytes", &[Bytes], Bytes, Builtin::ToBytes),
    global("bytes", &[String], Bytes, Builtin::ToBytes),
    global("timestamp", &[Timestamp], Timestamp, Builtin::ToTimestamp),
    global("timestamp", &[String], Timestamp, Builtin::ToTimestamp),
    global("timestamp", &[Int], Timestamp, Builtin::ToTimestamp),
    global("duration", &[Duration], Duration, Builtin::ToDuration),
    global("duration", &[String], Duration, Builtin::ToDuration),
    global("type", &[Any], Type, Builtin::TypeOf),
    global("dyn", &[Any], Any, Builtin::Dyn),
    method("getFullYear", &[Timestamp], Int, Builtin::Time(times::Part::FullYear)),
    method("getFullYear", &[Timestamp, String], Int, Builtin::Time(times::Part::FullYear)),
    method("getMonth", &[Timestamp], Int, Builtin::Time(times::Part::Month)),
    method("getMonth", &[Timestamp, String], Int, Builtin::Time(times::Part::Month)),
    method("getDate", &[Timestamp], Int, Builtin::Time(times::Part::Date)),
    method("getDate", &[Timestamp, String], Int, Builtin::Time(times::Part::Date)),
    method("getDayOfMonth", &[Timestamp], Int, Builtin::Time(times::Part::DayOfMonth)),
    method("getDayOfMonth", &[Timestamp, String], Int, Builtin::Time(times::Part::DayOfMonth)),
    method("getDayOfWeek", &[Timestamp], Int, Builtin::Time(times::Part::DayOfWeek)),
    method("getDayOfWeek", &[Timestamp, String], Int, Builtin::Time(times::Part::DayOfWeek)),
    method("getDayOfYear", &[Timestamp], Int, Builtin::Time(times::Part::DayOfYear)),
    method("getDayOfYear", &[Timestamp, String], Int, Builtin::Time(times::Part::DayOfYear)),
    method("getHours", &[Timestamp], Int, Builtin::Time(times::Part::Hours)),
    method("getHours", &[Timestamp, String], Int, Builtin::Time(times::Part::Hours)),
    method("getHours", &[Duration], Int, Builtin::Time(times::Part::Hours)),
    method("getMinutes", &[Timestamp], Int, Builtin::Time(times::Part::Minutes)),
    method("getMinutes", &[Timestamp, String], Int, Builtin::Time(times::Part::Minutes)),
    method("getMinutes", &[Duration], Int, Builtin::Time(times::Part::Minutes)),
    method("getSeconds", &[Timestamp], Int, Builtin::Time(times::Part::Seconds)),
    method("getSeconds", &[Timestamp, String], Int, Builtin::Time(times::Part::Seconds)),
    method("getSeconds", &[Duration], Int, Builtin::Time(times::Part::Seconds)),
    method("getMilliseconds", &[Timestamp], Int, Builtin::Time(times::Part::Milliseconds)),
    method("getMilliseconds", &[Timestamp, String], Int, Builtin::Time(times::Part::Milliseconds)),
    method("getMilliseconds", &[Duration], Int, Builtin::Time(times::Part::Milliseconds)),
    method("lowerAscii", &[String], String, Builtin::Lower),
    method("upperAscii", &[String], String, Builtin::Upper),
    method("trim", &[String], String, Builtin::Trim),
    method("split", &[String, String], Texts, Builtin::Split),
    method("split", &[String, String, Int], Texts, Builtin::Split),
    method("join", &[Texts], String, Builtin::Join),
    method("join", &[Texts, String], String, Builtin::Join),
    method("replace", &[String, String, String], String, Builtin::Replace),
    method("replace", &[String, String, String, Int], String, Builtin::Replace),
    method("substring", &[String, Int], String, Builtin::Substring),
    method("substring", &[String, Int, Int], String, Builtin::Substring),
    method("charAt", &[String, Int], String, Builtin::CharAt),
    method("indexOf", &[String, String], Int, Builtin::IndexOf),
    method("indexOf", &[String, String, Int], Int, Builtin::IndexOf),
    method("lastIndexOf", &[String, String], Int, Builtin::LastIndexOf),
    method("lastIndexOf", &[String, String, Int], Int, Builtin::LastIndexOf),
    global("math.greatest", &[List], Any, Builtin::Greatest),
    global("math.least", &[List], Any, Builtin::Least),
    global("math.abs", &[Number], Any, Builtin::Abs),
    method("get", &[Map, Any, Any], Any, Builtin::Get),
    global("optional.of", &[Any], Optional, Builtin::OptionalOf),
    global("optional.none", &[], Optional, Builtin::OptionalNone),
    method("hasValue", &[Optional], Bool, Builtin::HasValue),
    method("value", &[Optional], Any, Builtin::OptionalValue),
    method("orValue", &[Optional, Any], Any, Builtin::OrValue),
    method("or", &[Optional, Optional], Optional, Builtin::Or),
];

/// The value of a function.
pub(crate) fn apply<'v>(
    builtin: Builtin,
    args: &[Value<'v>],
    budget: &mut Budget,
) -> Result<Value<'v>, ErrorKind> {
    match (builtin, args) {
        (Builtin::Size, [of]) => size(of, budget),
        (Builtin::StartsWith, [text, part]) => {
            texts::test("startsWith", text, part, budget, |text, part| text.starts_with(part))
        }
        (Builtin::EndsWith, [text, part]) => {
            texts::test("endsWith", text, part, budget, |text, part| text.ends_with(part))
        }
        (Builtin::Contains, [text, part]) => {
            texts::test("contains", text, part, budget, |text, part| text.contains(part))
        }
        (Builtin::Matches, [text, pattern]) => texts::matches(text, pattern, budget),
        (Builtin::TypeOf, [value]) => Ok(Value::Type(value.type_name())),
        (Builtin::Dyn, [value]) => Ok(value.clone()),
        (Builtin::Time(part), [moment]) => times::part(part, moment, None),
        (Builtin::Time(part), [moment, zone]) => times::part(part, moment, Some(zone)),
        (Builtin::Greatest, [list]) => numbers::extreme("math.greatest", list, true, budget),
        (Builtin::Least, [list]) => numbers::extreme("math.least", list, false, budget),
        (Builtin::Abs, [number]) => numbers::abs(number),
        (Builtin::Get, [Value::Map(map), key, default]) => {
            budget.take(map.len() as u64 / crate::limits::KEYS_PER_STEP)?;
            Ok(map.get(key).unwrap_or_else(|| default.clone()))
        }
        (
            Builtin::OptionalOf
            | Builtin::OptionalNone
            | Builtin::HasValue
            | Builtin::OptionalValue
            | Builtin::OrValue
            | Builtin::Or,
            args,
        ) => optional::apply(builtin, args),
        (
            Builtin::Lower | Builtin::Upper | Builtin::Trim | Builtin::Split | Builtin::Join,
            args,
        )
        | (Builtin::Replace | Builtin::Substring | Builtin::CharAt, args)
        | (Builtin::IndexOf | Builtin::LastIndexOf, args) => texts::apply(builtin, args, budget),
        (_, [value]) => convert::apply(builtin, value, budget),
        (_, args) => Err(refused("call", args)),
    }
}

/// The error of arguments that a function does not know.
fn refused(operation: &'static str, args: &[Value<'_>]) -> ErrorKind {
    match (args.first(), args.last()) {
        (Some(first), Some(last)) => no_overload(operation, first, last),
        _ => ErrorKind::Argument("an argument"),
    }
}

fn size<'v>(of: &Value<'v>, budget: &mut Budget) -> Result<Value<'v>, ErrorKind> {
    let size = match of {
        Value::List(list) => list.len(),
        Value::Map(map) => map.len(),
        other => match (other.as_str(), other.as_bytes()) {
            (Some(text), _) => {
                budget.take_bytes(text.len())?;
                text.chars().count()
            }
            (None, Some(bytes)) => bytes.len(),
            _ => return Err(no_overload("size", other, other)),
        },
    };
    Ok(Value::Int(i64::try_from(size).unwrap_or(i64::MAX)))
}
