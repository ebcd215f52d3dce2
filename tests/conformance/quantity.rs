//! Quantities as whole numbers, by a reading of our own: the server's must not test itself.

/// Units, rounded up: cores, bytes.
pub fn rounded_up(text: &str) -> u64 {
    const SUFFIXES: [(&str, u64); 8] = [
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("Ti", 1 << 40),
        ("k", 1_000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("T", 1_000_000_000_000),
    ];
    let number = |text: &str| text.parse::<u64>().unwrap_or_else(|e| panic!("{text}: {e}"));
    if let Some(milli) = text.strip_suffix('m') {
        return number(milli).div_ceil(1000);
    }
    let suffixed = SUFFIXES
        .iter()
        .find_map(|(suffix, factor)| Some(number(text.strip_suffix(suffix)?) * factor));
    suffixed.unwrap_or_else(|| number(text))
}
