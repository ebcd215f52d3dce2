//! Parts of times and durations (upstream: `cel-go/common/types/timestamp.go`, `duration.go`).

use super::Native;
use crate::registry::cel::error::Error;
use crate::registry::cel::value::Value;
use crate::schedule::time_zone;
use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};

pub(super) fn native(name: &str) -> Option<Native> {
    Some(match name {
        "getFullYear" => |arguments| part(arguments, |time| time.year().into(), None),
        "getMonth" => |arguments| part(arguments, |time| i64::from(time.month()) - 1, None),
        "getDayOfYear" => |arguments| part(arguments, |time| i64::from(time.day_of_year()) - 1, None),
        "getDayOfMonth" => |arguments| part(arguments, |time| i64::from(time.day()) - 1, None),
        "getDate" => |arguments| part(arguments, |time| time.day().into(), None),
        "getDayOfWeek" => |arguments| part(arguments, |time| time.weekday().to_sunday_zero_offset().into(), None),
        "getHours" => |arguments| part(arguments, |time| time.hour().into(), Some(3_600_000_000_000)),
        "getMinutes" => |arguments| part(arguments, |time| time.minute().into(), Some(60_000_000_000)),
        "getSeconds" => |arguments| part(arguments, |time| time.second().into(), Some(1_000_000_000)),
        "getMilliseconds" => |arguments| {
            // Of a duration the milliseconds beyond whole seconds.
            if let [Value::Duration(nanos)] = arguments {
                return Ok(Value::Int(nanos / 1_000_000 % 1000));
            }
            part(arguments, |time| time.millisecond().into(), None)
        },
        _ => return None,
    })
}

/// The part of a time in a zone, or how often `unit` nanoseconds are in a duration.
fn part<'a>(arguments: &[Value<'a>], of: fn(DateTime) -> i64, unit: Option<i64>) -> Result<Value<'a>, Error> {
    match (arguments, unit) {
        ([Value::Timestamp(time)], _) => Ok(Value::Int(of(time.to_zoned(TimeZone::UTC).datetime()))),
        ([Value::Timestamp(time), Value::String(name)], _) => Ok(Value::Int(of(time.to_zoned(zone(name)?).datetime()))),
        ([Value::Duration(nanos)], Some(unit)) => Ok(Value::Int(nanos / unit)),
        _ => Err(Error::NoSuchOverload),
    }
}

/// A zone by name, or an offset: `-02:00`, `05:30`.
fn zone(name: &str) -> Result<TimeZone, Error> {
    let Some((hours, minutes)) = name.split_once(':') else {
        return time_zone(name).ok_or_else(|| Error::of(format!("unknown time zone {name}")));
    };
    let parsed = || {
        let negative = hours.starts_with('-');
        let hours: i32 = hours.trim_start_matches(['+', '-']).parse().ok()?;
        let minutes: i32 = minutes.parse().ok()?;
        let seconds = hours * 3600 + minutes * 60;
        Offset::from_seconds(if negative { -seconds } else { seconds }).ok()
    };
    parsed()
        .map(TimeZone::fixed)
        .ok_or_else(|| Error::of(format!("unknown time zone {name}")))
}

/// Seconds with as many decimals as needed: `90s`, `1.5s`.
pub(super) fn format_duration(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    let (seconds, rest) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    if rest == 0 {
        return format!("{sign}{seconds}s");
    }
    let fraction = format!("{rest:09}");
    format!("{sign}{seconds}.{}s", fraction.trim_end_matches('0'))
}

/// RFC 3339 with as many decimals as needed.
pub(super) fn format_timestamp(time: jiff::Timestamp) -> String {
    time.to_string()
}
