//! How well a name fits a search term, from 0 (not at all) to 1. Semantics: Prometheus `web/api/v1/search_filters.go`.

/// Scores of what is not the term itself stay below 1 when rounded.
const NOT_EXACT: f64 = 0.999;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// The characters of the term in order, the closer the better.
    Subsequence,
    /// The term inside, or a small Jaro-Winkler distance.
    JaroWinkler,
}

/// Accepts what fits one of several terms.
#[derive(Debug)]
pub struct Filter {
    terms: Vec<Vec<char>>,
    threshold: f64,
    algorithm: Algorithm,
    case_sensitive: bool,
}

impl Filter {
    /// `None` when no term says anything.
    pub fn new(terms: &[&str], threshold: f64, algorithm: Algorithm, case_sensitive: bool) -> Option<Self> {
        let terms: Vec<Vec<char>> = terms
            .iter()
            .filter(|t| !t.is_empty())
            .map(|t| chars(t, case_sensitive))
            .collect();
        (!terms.is_empty()).then_some(Filter {
            terms,
            threshold,
            algorithm,
            case_sensitive,
        })
    }

    /// The best score, `None` when no term fits.
    pub fn score(&self, value: &str) -> Option<f64> {
        let value = chars(value, self.case_sensitive);
        let scores = self.terms.iter().filter_map(|term| self.one(term, &value));
        scores.max_by(f64::total_cmp)
    }

    fn one(&self, term: &[char], value: &[char]) -> Option<f64> {
        match self.algorithm {
            Algorithm::Subsequence => {
                if value.starts_with(term) {
                    return Some(1.0);
                }
                let score = subsequence(term, value);
                (score > 0.0 && score >= self.threshold).then_some(score)
            }
            Algorithm::JaroWinkler => substring(term, value).or_else(|| {
                if self.threshold <= 0.0 {
                    return None;
                }
                let score = jaro_winkler(term, value);
                (score >= self.threshold).then_some(score)
            }),
        }
    }
}

fn chars(text: &str, case_sensitive: bool) -> Vec<char> {
    if case_sensitive {
        text.chars().collect()
    } else {
        text.to_lowercase().chars().collect()
    }
}

/// 1 at the start, down to 0.1 at the end.
fn substring(term: &[char], value: &[char]) -> Option<f64> {
    let at = value.windows(term.len()).position(|w| w == term)?;
    let last = value.len() - term.len();
    Some(if at == 0 || last == 0 {
        1.0
    } else {
        1.0 - 0.9 * at as f64 / last as f64
    })
}

/// Squares of the lengths of runs, less the gaps in parts of the value's length, in parts of the best possible.
/// Matching is greedy from every occurrence of the first character. O(value²) at worst.
fn subsequence(term: &[char], value: &[char]) -> f64 {
    if term.len() > value.len() || term.is_empty() {
        return 0.0;
    }
    let per_char = 1.0 / value.len() as f64;
    let mut best = -1.0;
    for start in 0..=value.len() - term.len() {
        if value[start] != term[0] {
            continue;
        }
        match runs(term, value, start, per_char) {
            Some(score) if score > best => best = score,
            Some(_) => {}
            // What cannot be completed from here cannot be completed later.
            None => break,
        }
    }
    if best < 0.0 {
        return 0.0;
    }
    best / (term.len() * term.len()) as f64 * NOT_EXACT
}

fn runs(term: &[char], value: &[char], start: usize, per_char: f64) -> Option<f64> {
    let mut score = -(start as f64) * per_char;
    let (mut i, mut matched, mut run) = (start, 0, 0usize);
    let mut gap = 0usize;
    while matched < term.len() {
        let c = *value.get(i)?;
        i += 1;
        if c == term[matched] {
            if gap > 0 {
                score -= gap as f64 * per_char;
                gap = 0;
            }
            matched += 1;
            run += 1;
        } else {
            score += (run * run) as f64;
            run = 0;
            gap += 1;
        }
    }
    score += (run * run) as f64;
    Some(score - (value.len() - i) as f64 * per_char * 0.5)
}

fn jaro_winkler(a: &[char], b: &[char]) -> f64 {
    if a == b {
        return 1.0;
    }
    let (a, b) = if a.len() > b.len() { (b, a) } else { (a, b) };
    if a.is_empty() {
        return 0.0;
    }
    let reach = (b.len() / 2).saturating_sub(1);
    let mut taken = vec![false; b.len()];
    let mut of_a = Vec::new();
    for (i, c) in a.iter().enumerate() {
        let (from, to) = (i.saturating_sub(reach), (i + reach + 1).min(b.len()));
        if let Some(j) = (from..to).find(|&j| !taken[j] && b[j] == *c) {
            taken[j] = true;
            of_a.push(*c);
        }
    }
    if of_a.is_empty() {
        return 0.0;
    }
    let of_b = b.iter().zip(&taken).filter(|(_, t)| **t).map(|(c, _)| c);
    let swapped = of_a.iter().zip(of_b).filter(|(x, y)| x != y).count();
    let m = of_a.len() as f64;
    let jaro = (m / a.len() as f64 + m / b.len() as f64 + (m - swapped as f64 * 0.5) / m) / 3.0;
    let prefix = a.iter().zip(b).take(4).take_while(|(x, y)| x == y).count();
    jaro + prefix as f64 * 0.1 * (1.0 - jaro)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(algorithm: Algorithm, threshold: f64, term: &str, value: &str) -> Option<f64> {
        Filter::new(&[term], threshold, algorithm, true).and_then(|f| f.score(value))
    }

    #[test]
    fn subsequences() {
        let s = |term, value| score(Algorithm::Subsequence, 0.0, term, value);
        assert_eq!(s("http", "http_requests"), Some(1.0));
        assert_eq!(s("xyz", "http"), None);
        // Two runs of one, a gap of one before and between, none behind: (2 − 2/4) / 4.
        let got = s("bd", "abcd").expect("fits");
        assert!((got - 1.5 / 4.0 * NOT_EXACT).abs() < 1e-12, "{got}");
        assert!(s("req", "http_requests") > s("rqs", "http_requests"));
        assert_eq!(score(Algorithm::Subsequence, 0.9, "bd", "abcd"), None);
    }

    #[test]
    fn substrings_and_distances() {
        let s = |threshold, term, value| score(Algorithm::JaroWinkler, threshold, term, value);
        assert_eq!(s(0.0, "a", "a"), Some(1.0));
        assert_eq!(s(0.0, "c", "abc"), Some(1.0 - 0.9));
        assert_eq!(s(0.0, "martha", "marhta"), None);
        let got = s(0.5, "martha", "marhta").expect("near");
        assert!((got - 0.961_111).abs() < 1e-6, "{got}");
        assert_eq!(s(0.5, "abc", "xyz"), None);
    }

    #[test]
    fn several_terms_and_case() {
        assert!(Filter::new(&["", ""], 0.0, Algorithm::Subsequence, true).is_none());
        let f = Filter::new(&["zzz", "UP"], 0.0, Algorithm::Subsequence, false).expect("terms");
        assert_eq!(f.score("Up_total"), Some(1.0));
        let f = Filter::new(&["UP"], 0.0, Algorithm::Subsequence, true).expect("a term");
        assert_eq!(f.score("up"), None);
    }
}
