//! Values of settings from text.

use std::time::Duration;

/// `15d`, `1h30m`, `250ms`, `0`; units y w d h m s ms, each at most once, largest first, as in Prometheus.
pub fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is not a duration such as 30s, 1h30m or 15d");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    const UNITS: [(&str, u64); 7] = [
        ("y", 31_536_000_000),
        ("w", 604_800_000),
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1000),
        ("ms", 1),
    ];
    let mut rest = text;
    let mut total_ms = 0u64;
    let mut next_unit = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let n: u64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let at = UNITS[next_unit..]
            .iter()
            .position(|(u, _)| *u == &rest[..letters])
            .ok_or_else(bad)?
            + next_unit;
        rest = &rest[letters..];
        total_ms = n
            .checked_mul(UNITS[at].1)
            .and_then(|ms| total_ms.checked_add(ms))
            .ok_or_else(bad)?;
        next_unit = at + 1;
    }
    if text.is_empty() {
        Err(bad())
    } else {
        Ok(Duration::from_millis(total_ms))
    }
}

/// `512`, `64KiB`, `100MB`, `1.5GiB`; a bare number is bytes.
pub fn bytes(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is not a size such as 512, 64KiB or 1.5GB");
    let split = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "KB" | "kB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" | "K" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        "TiB" | "T" => 1 << 40,
        _ => return Err(bad()),
    };
    if let Ok(n) = number.parse::<u64>() {
        return n.checked_mul(factor).ok_or_else(bad);
    }
    let n: f64 = number.parse().map_err(|_| bad())?;
    let bytes = n * factor as f64;
    if bytes.is_finite() && bytes < u64::MAX as f64 {
        Ok(bytes as u64)
    } else {
        Err(bad())
    }
}

pub fn count(text: &str) -> Result<u64, String> {
    text.replace('_', "")
        .parse()
        .map_err(|_| format!("{text:?} is not a whole number"))
}

pub fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

/// Names separated by commas, spaces around them left out; empty text is no name.
pub fn list(text: &str) -> Result<Vec<String>, String> {
    let mut out: Vec<String> = Vec::new();
    if text.trim().is_empty() {
        return Ok(out);
    }
    for name in text.split(',').map(str::trim) {
        if name.is_empty() {
            return Err(format!("{text:?} has an empty name in it"));
        }
        if out.iter().any(|n| n == name) {
            return Err(format!("{name:?} stands twice in {text:?}"));
        }
        out.push(name.to_owned());
    }
    Ok(out)
}

/// A port alone takes `host`.
pub fn listen(text: &str, host: &str) -> Result<String, String> {
    let bad = || format!("{text:?} is neither a port nor host:port");
    let (h, port) = match text.rsplit_once(':') {
        Some((h, p)) => (h, p),
        None => (host, text),
    };
    let port: u16 = port.parse().map_err(|_| bad())?;
    if h.is_empty() {
        return Err(bad());
    }
    let bare_v6 = h.contains(':') && !h.starts_with('[');
    Ok(if bare_v6 {
        format!("[{h}]:{port}")
    } else {
        format!("{h}:{port}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let ok = |t: &str, ms: u64| assert_eq!(duration(t), Ok(Duration::from_millis(ms)), "{t}");
        ok("0", 0);
        ok("15d", 15 * 86_400_000);
        ok("1h30m", 5_400_000);
        ok("250ms", 250);
        ok("1m0s", 60_000);
        for bad in ["", "5", "1x", "s", "1m1h", "1m1m", "-1s", "99999999999999y", "1.5h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes() {
        let ok = |t: &str, n: u64| assert_eq!(bytes(t), Ok(n), "{t}");
        ok("0", 0);
        ok("512", 512);
        ok("64KiB", 65536);
        ok("1.5GB", 1_500_000_000);
        for bad in ["", "x", "1XB", "-1", "99999999999TB", "1.2.3"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn lists() {
        assert_eq!(list(" "), Ok(Vec::new()));
        assert_eq!(list("a, b.c"), Ok(vec!["a".to_owned(), "b.c".to_owned()]));
        for bad in [",", "a,", "a,b,a"] {
            assert!(list(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn listeners() {
        assert_eq!(listen("9090", "127.0.0.1").as_deref(), Ok("127.0.0.1:9090"));
        assert_eq!(listen("0.0.0.0:80", "x").as_deref(), Ok("0.0.0.0:80"));
        assert_eq!(listen("[::1]:80", "x").as_deref(), Ok("[::1]:80"));
        assert_eq!(listen("0", "::1").as_deref(), Ok("[::1]:0"));
        for bad in ["", "x", "70000", ":80", "a:b"] {
            assert!(listen(bad, "h").is_err(), "{bad}");
        }
    }
}
