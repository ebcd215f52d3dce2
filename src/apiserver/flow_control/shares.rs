//! How the server's seats are divided among the priority levels, and lent (upstream: `flowcontrol/conc_alloc.go` and
//! `updateBorrowing` of `flowcontrol/apf_controller.go`).

/// What a level's object says of its seats.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Share {
    pub shares: u32,
    pub lendable_percent: u32,
    /// None: as many as there are.
    pub borrowing_percent: Option<u32>,
}

/// The seats of a level: its own, what it keeps, and what it may have at most.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bounds {
    pub nominal: u32,
    pub least: u32,
    pub most: u32,
}

/// Divides `seats` by shares. Rounding up may give out a few more, as upstream.
pub fn divide(seats: u32, shares: &[Share]) -> Vec<Bounds> {
    let sum: f64 = shares.iter().map(|share| f64::from(share.shares)).sum();
    let of = |nominal: u32, percent: u32| (f64::from(nominal) * f64::from(percent) / 100.0).round() as u32;
    let bounds = |share: &Share| {
        let nominal = match sum > 0.0 {
            true => (f64::from(seats) * f64::from(share.shares) / sum).ceil() as u32,
            false => 0,
        };
        let borrowed = share.borrowing_percent.map_or(seats, |percent| of(nominal, percent));
        Bounds {
            nominal,
            least: nominal - of(nominal, share.lendable_percent).min(nominal),
            most: nominal.saturating_add(borrowed),
        }
    };
    shares.iter().map(bounds).collect()
}

/// A level and what it could have used of late.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    pub exempt: bool,
    pub bounds: Bounds,
    /// The most seats that it could have used since the last time.
    pub most: u32,
    pub smoothed: f64,
}

impl Wanted {
    /// What it does not go below: what it keeps, and of its own seats those that it used.
    fn least(&self) -> f64 {
        let used = match self.exempt {
            true => self.most,
            false => self.most.min(self.bounds.nominal),
        };
        f64::from(self.bounds.least.max(used))
    }

    fn target(&self) -> f64 {
        self.least().max(self.smoothed).max(0.001)
    }
}

/// The limit of each level for the next while: all get the same part of what they could use, within their bounds.
pub fn lend(levels: &[Wanted]) -> Vec<u32> {
    let own: f64 = levels.iter().map(|level| f64::from(level.bounds.nominal)).sum();
    let exempt: f64 = levels.iter().filter(|level| level.exempt).map(Wanted::least).sum();
    let left = own - exempt;
    let limited = || levels.iter().filter(|level| !level.exempt);
    let kept: f64 = limited().map(|level| f64::from(level.bounds.least)).sum();
    let least: f64 = limited().map(Wanted::least).sum();
    let limit = |level: &Wanted| -> f64 {
        let bottom = f64::from(level.bounds.least);
        if level.exempt {
            level.least()
        } else if left <= kept {
            bottom
        } else if left <= least {
            bottom + (level.least() - bottom) * (left - kept) / (least - kept)
        } else {
            part(level, fair_part(levels, left))
        }
    };
    levels.iter().map(|level| limit(level).round() as u32).collect()
}

fn part(level: &Wanted, fair: f64) -> f64 {
    let (least, most) = (level.least(), f64::from(level.bounds.most));
    (level.target() * fair).max(least).min(most.max(least))
}

/// The part of their targets at which the levels have `seats` in all: halved in, as the sum only grows with it.
fn fair_part(levels: &[Wanted], seats: f64) -> f64 {
    let sum = |fair: f64| -> f64 {
        let limited = levels.iter().filter(|level| !level.exempt);
        limited.map(|level| part(level, fair)).sum()
    };
    let (mut low, mut high) = (0.0, 1.0);
    while sum(high) < seats && high < 1e9 {
        high *= 2.0;
    }
    for _ in 0..64 {
        let middle = (low + high) / 2.0;
        if sum(middle) < seats {
            low = middle
        } else {
            high = middle
        }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(shares: u32, lendable_percent: u32) -> Share {
        Share {
            shares,
            lendable_percent,
            borrowing_percent: None,
        }
    }

    /// The levels that every cluster has: exempt, catch-all, system, node-high, leader-election, workload-high,
    /// workload-low, global-default.
    fn standard() -> Vec<Bounds> {
        let rows = [
            (0, 0),
            (5, 0),
            (30, 33),
            (40, 25),
            (10, 0),
            (40, 50),
            (100, 90),
            (20, 50),
        ];
        divide(600, &rows.map(|(shares, lendable)| share(shares, lendable)))
    }

    fn wanted(demand: &[f64]) -> Vec<Wanted> {
        let levels = standard().into_iter().zip(demand).enumerate();
        levels
            .map(|(index, (bounds, demand))| Wanted {
                exempt: index == 0,
                bounds,
                most: *demand as u32,
                smoothed: *demand,
            })
            .collect()
    }

    #[test]
    fn seats_are_divided_as_upstream_does() {
        let nominal: Vec<u32> = standard().iter().map(|bounds| bounds.nominal).collect();
        assert_eq!(nominal, [0, 13, 74, 98, 25, 98, 245, 49]);
        let least: Vec<u32> = standard().iter().map(|bounds| bounds.least).collect();
        assert_eq!(least, [0, 13, 50, 73, 25, 49, 24, 24]);
        let bounded = Share {
            borrowing_percent: Some(50),
            ..share(1, 0)
        };
        assert_eq!(divide(10, &[bounded, share(1, 0)])[0].most, 8);
        assert_eq!(divide(10, &[share(0, 0)])[0].nominal, 0);
    }

    #[test]
    fn who_is_idle_lends_and_who_is_busy_borrows() {
        let limits = lend(&wanted(&[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1000.0]));
        assert_eq!(limits.iter().sum::<u32>(), 602);
        assert_eq!(limits[..6], [0, 13, 50, 73, 25, 49], "what is not lendable stays");
        assert!(limits[7] > 350, "{limits:?}");
        let both = lend(&wanted(&[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1000.0, 1000.0]));
        assert!(
            both[6] >= 245 - 2 && both[7] >= 49,
            "{both:?}: nobody loses own seats that it uses"
        );
    }

    #[test]
    fn the_exempt_are_served_at_the_cost_of_what_can_be_lent() {
        let limits = lend(&wanted(&[600.0, 0.0, 100.0, 0.0, 0.0, 0.0, 0.0, 0.0]));
        assert_eq!(limits, [600, 13, 50, 73, 25, 49, 24, 24]);
    }

    #[test]
    fn limits_keep_their_bounds_whatever_is_wanted() {
        for seed in 0..500_u64 {
            let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
            let mut random = || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state % 400) as f64
            };
            let demand: Vec<f64> = (0..8).map(|index| if index == 0 { 0.0 } else { random() }).collect();
            let levels = wanted(&demand);
            let limits = lend(&levels);
            for (level, limit) in levels.iter().zip(&limits) {
                assert!(
                    *limit >= level.bounds.least && *limit <= level.bounds.most,
                    "seed {seed}: {level:?} {limit}"
                );
            }
            let sum: u32 = limits.iter().sum();
            assert!((602_i64 - i64::from(sum)).abs() <= 8, "seed {seed}: {sum} of 602");
        }
    }
}
