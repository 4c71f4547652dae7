//! Times and durations as the three APIs write them. Each family has its own rules.

use jiff::Timestamp;
use jiff::civil::Date;

use crate::params::Params;
use crate::prom::ApiError;

/// Prometheus: Unix seconds with fraction, or RFC 3339; to ms.
///
/// # Errors
/// Upstream's text for `invalid parameter "…":`.
pub fn prometheus(text: &str) -> Result<i64, String> {
    let bad = || format!("cannot parse {text:?} to a valid timestamp");
    if let Some(seconds) = go_float(text) {
        // The fraction is rounded by itself: 1.0005 is 1000 ms, though 1.0005 · 1000 rounds to 1001.
        let whole = seconds.trunc();
        let ms = whole * 1000.0 + ((seconds - whole) * 1000.0).round();
        return (ms.is_finite() && ms.abs() < 9.2e18)
            .then_some(ms as i64)
            .ok_or_else(bad);
    }
    match text {
        // The bounds that clients of the Go API send for an open range; their years have more than four digits.
        "-292273086-05-16T16:47:06Z" => return Ok(-9_223_372_036_854_775 * 1000 + 62_135_596_801_000),
        "292277025-08-18T07:12:54.999999999Z" => return Ok(9_223_372_036_854_775 * 1000 - 62_135_596_801_000 + 999),
        _ => {}
    }
    rfc3339_ms(text).ok_or_else(bad)
}

/// RFC 3339 with the letters in upper case, years 0 to 9999; finer parts than milliseconds are cut off. The usual parser takes
/// more (no seconds, a space for the `T`, names of zones) and ends a day before the year 9999 does.
fn rfc3339_ms(text: &str) -> Option<i64> {
    let number = |from: usize, to: usize| -> Option<i16> {
        let digits = text.get(from..to)?;
        digits
            .bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| digits.parse().ok())?
    };
    let separated = |text: &str, at: &[(usize, u8)]| at.iter().all(|(i, b)| text.as_bytes().get(*i) == Some(b));
    if !separated(text, &[(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')]) {
        return None;
    }
    let date = Date::new(number(0, 4)?, number(5, 7)? as i8, number(8, 10)? as i8).ok()?;
    let days = Date::constant(1970, 1, 1).until(date).ok()?.get_days();
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut zone = text.get(19..)?;
    let mut ms = 0;
    if let Some(rest) = zone.strip_prefix(['.', ',']) {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let padded = format!("{:0<3}", &rest[..digits]);
        ms = if digits == 0 {
            None
        } else {
            padded[..3].parse::<i64>().ok()
        }?;
        zone = &rest[digits..];
    }
    let offset_minutes = match zone.as_bytes() {
        b"Z" => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let at = text.len() - 5;
            let (hours, minutes) = (number(at, at + 2)?, number(at + 3, at + 5)?);
            let minutes = (hours <= 24 && minutes < 60).then_some(hours * 60 + minutes)?;
            if *sign == b'-' { -minutes } else { minutes }
        }
        _ => return None,
    };
    let minutes = (i64::from(days) * 24 + i64::from(hour)) * 60 + i64::from(minute) - i64::from(offset_minutes);
    Some((minutes * 60 + i64::from(second)) * 1000 + ms)
}

/// An optional time parameter of the Prometheus API; to ms.
///
/// # Errors
/// 400 with upstream's text.
pub(crate) fn optional(params: &Params, name: &str) -> Result<Option<i64>, ApiError> {
    match params.get(name) {
        None => Ok(None),
        Some(text) => prometheus(text)
            .map(Some)
            .map_err(|e| ApiError::parameter(name, format_args!("invalid time value for '{name}': {e}"))),
    }
}

/// Prometheus durations: float seconds or `1h30m`; to ms.
///
/// # Errors
/// Upstream's text.
pub fn prometheus_duration(text: &str) -> Result<i64, String> {
    let bad = || format!("cannot parse {text:?} to a valid duration");
    if let Some(seconds) = go_float(text) {
        // Whole nanoseconds, and of these whole milliseconds.
        let ns = seconds * 1e9;
        let fits = ns.abs() <= i64::MAX as f64;
        return if fits {
            Ok(ns as i64 / 1_000_000)
        } else {
            Err(format!("{}. It overflows int64", bad()))
        };
    }
    duration_ms(text)
        .filter(|ms| *ms <= i64::MAX / 1_000_000)
        .ok_or_else(bad)
}

/// What `strconv.ParseFloat` takes and JSON-ish clients send; hexadecimal floats and underscores are left out.
fn go_float(text: &str) -> Option<f64> {
    let plain = text.strip_prefix(['+', '-']).unwrap_or(text);
    let numeric = plain.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    let named = ["inf", "infinity", "nan"].iter().any(|n| plain.eq_ignore_ascii_case(n));
    (numeric || named).then(|| text.parse().ok()).flatten()
}

/// `1y2w3d4h5m6s7ms`, each unit at most once and in this order, or `0`. Prometheus' grammar.
pub fn duration_ms(text: &str) -> Option<i64> {
    const UNITS: [(&str, i64); 7] = [
        ("y", 31_536_000_000),
        ("w", 604_800_000),
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1000),
        ("ms", 1),
    ];
    if text == "0" {
        return Some(0);
    }
    let mut rest = text;
    let mut total = 0i64;
    let mut next = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let n: i64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let at = next + UNITS[next..].iter().position(|(u, _)| *u == &rest[..letters])?;
        rest = &rest[letters..];
        total = total.checked_add(n.checked_mul(UNITS[at].1)?)?;
        next = at + 1;
    }
    (!text.is_empty()).then_some(total)
}

/// Loki: float seconds when there is a point, else up to 10 digits seconds and more digits nanoseconds, else RFC 3339; to ns.
///
/// # Errors
/// Upstream's text, which is that of Go's number parser.
pub fn loki(text: &str) -> Result<i64, String> {
    if text.contains('.')
        && let Some(seconds) = go_float(text)
    {
        // The fraction is rounded to milliseconds.
        let whole = seconds.trunc();
        let frac_ms = ((seconds - whole) * 1000.0).round() as i64;
        let ns = (whole as i64)
            .checked_mul(1_000_000_000)
            .and_then(|n| n.checked_add(frac_ms * 1_000_000));
        return ns.ok_or_else(|| syntax(text));
    }
    if let Ok(n) = text.parse::<i64>() {
        return if text.len() <= 10 {
            n.checked_mul(1_000_000_000).ok_or_else(|| syntax(text))
        } else {
            Ok(n)
        };
    }
    text.parse::<Timestamp>()
        .ok()
        .and_then(|t| i64::try_from(t.as_nanosecond()).ok())
        .ok_or_else(|| syntax(text))
}

fn syntax(text: &str) -> String {
    format!("strconv.ParseInt: parsing {text:?}: invalid syntax")
}

/// Loki's `step` and `interval`: float seconds or a Prometheus duration; to ns.
///
/// # Errors
/// Upstream's text.
pub fn loki_duration(text: &str) -> Result<i64, String> {
    let bad = || format!("cannot parse {text:?} to a valid duration");
    if let Some(seconds) = go_float(text) {
        let ns = seconds * 1e9;
        return (ns.is_finite() && ns.abs() < 9.2e18)
            .then_some(ns as i64)
            .ok_or_else(bad);
    }
    duration_ms(text)
        .and_then(|ms| ms.checked_mul(1_000_000))
        .ok_or_else(bad)
}

/// Go's `time.ParseDuration` (`1.5s`, `100ms`, `-1h`), as Tempo's min- and maxDuration take it; to ns.
pub fn go_duration_ns(text: &str) -> Option<i64> {
    const UNITS: [(&str, f64); 8] = [
        ("ns", 1.0),
        ("us", 1e3),
        ("µs", 1e3),
        ("μs", 1e3),
        ("ms", 1e6),
        ("s", 1e9),
        ("m", 6e10),
        ("h", 3.6e12),
    ];
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(r) => (true, r),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0.0f64;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let n: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit_len = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        let (_, factor) = UNITS.iter().find(|(u, _)| *u == &rest[..unit_len])?;
        rest = &rest[unit_len..];
        total += n * factor;
    }
    (total < 9.2e18).then_some(if negative { -(total as i64) } else { total as i64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prometheus_times() {
        assert_eq!(prometheus("1435781451.781"), Ok(1_435_781_451_781));
        assert_eq!(prometheus("-1.5"), Ok(-1500));
        assert_eq!(prometheus("2015-07-01T20:10:51.781Z"), Ok(1_435_781_451_781));
        assert_eq!(prometheus("2015-07-01T22:10:51.781+02:00"), Ok(1_435_781_451_781));
        for bad in ["", "foo", "NaN", "Inf", "1e300"] {
            assert!(prometheus(bad).is_err(), "{bad}");
        }
        for bad in [
            "2015-07-01 20:10:51Z",
            "2015-07-01T20:10Z",
            "2015-07-01t20:10:51z",
            "2015-07-01T20:10:51",
            "2015-07-01T20:10:51+02",
            "2015-07-01T20:10:51Z[UTC]",
            "2015-13-01T20:10:51Z",
            "2015-02-29T20:10:51Z",
            "2015-07-01T24:00:00Z",
            "2015-06-30T23:59:60Z",
            "2015-07-01T20:10:51.Z",
            "2015-07-01T20:10:51+0200",
            "2015-07-01T20:10:é1Z",
            "+015-07-01T20:10:51Z",
        ] {
            assert!(prometheus(bad).is_err(), "{bad}");
        }
        for (text, ms) in [
            ("2015-07-01T20:10:51Z", 1_435_781_451_000),
            ("2015-07-01T20:10:51,5Z", 1_435_781_451_500),
            ("2015-07-01T20:10:51.7819999Z", 1_435_781_451_781),
            ("2015-07-01T18:40:51-01:30", 1_435_781_451_000),
            ("1969-12-31T23:59:59.9995Z", -1),
            ("0001-01-01T00:00:00Z", -62_135_596_800_000),
            ("9999-12-31T23:59:59.999Z", 253_402_300_799_999),
            ("1.0005", 1000),
            ("-1.0005", -1000),
        ] {
            assert_eq!(prometheus(text), Ok(ms), "{text}");
        }
        assert_eq!(prometheus_duration("1.5"), Ok(1500));
        assert_eq!(prometheus_duration("1m0s"), Ok(60_000));
        assert_eq!(prometheus_duration("0.0019"), Ok(1));
        assert_eq!(prometheus_duration("290y"), Ok(290 * 31_536_000_000));
        assert!(prometheus_duration("300y").is_err());
        assert!(prometheus_duration("1e15").is_err_and(|e| e.ends_with("It overflows int64")));
        assert_eq!(
            prometheus_duration("x"),
            Err("cannot parse \"x\" to a valid duration".into())
        );
    }

    #[test]
    fn loki_times() {
        assert_eq!(loki("1700000000"), Ok(1_700_000_000_000_000_000));
        assert_eq!(loki("1700000000.1234"), Ok(1_700_000_000_123_000_000));
        assert_eq!(loki("1700000000000000001"), Ok(1_700_000_000_000_000_001));
        assert_eq!(loki("2023-11-14T22:13:20.000000001Z"), Ok(1_700_000_000_000_000_001));
        assert_eq!(
            loki("bogus"),
            Err("strconv.ParseInt: parsing \"bogus\": invalid syntax".into())
        );
        assert_eq!(loki_duration("15000ms"), Ok(15_000_000_000));
        assert_eq!(loki_duration("0.5"), Ok(500_000_000));
    }

    #[test]
    fn go_durations() {
        assert_eq!(go_duration_ns("1.5s"), Some(1_500_000_000));
        assert_eq!(go_duration_ns("1h2m3ms"), Some(3_720_003_000_000));
        assert_eq!(go_duration_ns("-1us"), Some(-1000));
        for bad in ["", "1", "s", "1d", "1.2.3s"] {
            assert_eq!(go_duration_ns(bad), None, "{bad}");
        }
    }
}
