//! Numbers that may be a share of something (upstream: `apimachinery/pkg/util/intstr`).

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    Up,
    Down,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid value for IntOrString: invalid type: string is not a percentage")]
pub struct NotAPercentage;

/// `value` itself, or its share of `total`.
pub fn scaled(value: &IntOrString, total: i32, round: Round) -> Result<i32, NotAPercentage> {
    let text = match value {
        IntOrString::Int(number) => return Ok(*number),
        IntOrString::String(text) => text,
    };
    let percent = text.strip_suffix('%').and_then(|digits| digits.parse::<i64>().ok());
    let hundredths = percent.ok_or(NotAPercentage)?.saturating_mul(i64::from(total));
    let down = hundredths.div_euclid(100);
    let up = down + i64::from(hundredths.rem_euclid(100) > 0);
    let scaled = if round == Round::Up { up } else { down };
    Ok(i32::try_from(scaled).unwrap_or(i32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_rounded_as_asked() {
        let share = |text: &str, total, round| scaled(&IntOrString::String(text.to_owned()), total, round);
        assert_eq!(scaled(&IntOrString::Int(7), 3, Round::Up), Ok(7));
        assert_eq!(share("25%", 10, Round::Down), Ok(2));
        assert_eq!(share("25%", 10, Round::Up), Ok(3));
        assert_eq!(share("100%", 3, Round::Up), Ok(3));
        assert_eq!(share("0%", 3, Round::Up), Ok(0));
        assert_eq!(share("25", 3, Round::Up), Err(NotAPercentage));
        assert_eq!(share("x%", 3, Round::Up), Err(NotAPercentage));
    }
}
