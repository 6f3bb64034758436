//! "Did you mean".

/// Returns the candidate that `word` most probably was meant to be.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // Keys of other tools are often written in snake case or as one word.
    let word = word.to_ascii_lowercase().replace('_', "-");
    let begun = format!("{word}-");
    (candidates.into_iter())
        .map(|candidate| (distance(&word, candidate), candidate))
        .filter(|(distance, candidate)| {
            // `token` is far from `token-file`, and still what was meant.
            let near = *distance <= candidate.len().max(word.len()).div_ceil(3);
            near || candidate.starts_with(&begun)
        })
        .min()
        .map(|(_, candidate)| candidate)
}

/// How many letters must be put in, taken out, replaced or swapped with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before_last = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before_last[j - 2] + 1);
            }
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_found_and_a_far_one_is_not() {
        let keys = ["listen", "shards", "drain"];
        assert_eq!(nearest("lisen", keys), Some("listen"));
        assert_eq!(nearest("shrads", keys), Some("shards"));
        assert_eq!(nearest("Drain", keys), Some("drain"));
        assert_eq!(nearest("workers", keys), None);
        assert_eq!(nearest("token", ["listen", "token-file"]), Some("token-file"));
        assert_eq!(nearest("ping_interval", ["ping-interval"]), Some("ping-interval"));
    }
}
