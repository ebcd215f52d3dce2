//! How many seats a request takes, and for how long beyond its answer (upstream: `flowcontrol/request`): lists take them
//! by what they hold in memory at once, writes by how many watch what they change.

use super::schema::FlowSchema;
use super::watchers::Watchers;
use crate::apiserver::context::Context;
use std::time::Duration;

const BYTES_PER_SEAT: u64 = 100_000;
/// A list is sent as it is made, so that no more of it is in memory than this.
const LIST_BYTES_MAX: u64 = 1_000_000;
const LIST_SEATS_MAX: u32 = 100;
const WATCHERS_PER_SEAT: u32 = 10;
const WRITE_SEATS_MAX: u32 = 10;
/// How long an event keeps a seat busy.
const EVENT_TIME: Duration = Duration::from_millis(5);
/// Of a level's own seats one request takes at most this part.
const LEVEL_PART: f64 = 0.15;

/// What a request takes: seats while it is served, and others while its event goes to who watches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Width {
    pub seats: u32,
    pub last: u32,
    pub lingers: Duration,
}

impl Width {
    pub const ONE: Self = Self::of_seats(1);

    pub const fn of_seats(seats: u32) -> Self {
        Self {
            seats,
            last: 0,
            lingers: Duration::ZERO,
        }
    }

    /// The seats that are set aside, from the first to the last moment.
    pub fn most(self) -> u32 {
        self.seats.max(self.last)
    }

    /// In seats times seconds, if it is served for so many seconds.
    pub fn work(self, seconds: f64) -> f64 {
        f64::from(self.seats) * seconds + f64::from(self.last) * self.lingers.as_secs_f64()
    }
}

/// The most that one request takes of a level with so many seats of its own, and so many queues for each flow.
pub fn widest(nominal: u32, hand: usize) -> u32 {
    let part = (f64::from(nominal) * LEVEL_PART).ceil() as u32;
    let of_hand = nominal / u32::try_from(hand.max(1)).unwrap_or(u32::MAX);
    part.min(of_hand).max(1)
}

/// Of a request of this schema.
pub fn of(ctx: &Context, schema: &FlowSchema, watchers: &Watchers) -> Width {
    let info = &ctx.info;
    if !info.is_resource_request {
        return Width::ONE;
    }
    // None: there is no bound but those of all levels.
    let widest = schema.level.widest();
    let most = |limit: u32| widest.map_or(limit, |widest| widest.min(limit));
    match info.verb.as_str() {
        "list" => list(ctx, most(LIST_SEATS_MAX)),
        "watch" if begins_with_state(ctx) => list(ctx, most(LIST_SEATS_MAX)),
        // A token is no object that anybody watches.
        "create" if info.resource == "serviceaccounts" && info.subresource == "token" => Width::ONE,
        "create" | "update" | "patch" | "delete" => {
            let watching = watchers.interested(info);
            schema.metrics.watched(watching);
            write(watching, most(WRITE_SEATS_MAX))
        }
        _ => Width::ONE,
    }
}

fn list(ctx: &Context, most: u32) -> Width {
    let info = &ctx.info;
    let registry = &ctx.server.registry;
    let Some(kind) = registry.lookup(&info.api_group, &info.api_version, &info.resource) else {
        return Width::ONE;
    };
    let (objects, bytes) = ctx.storage().size(kind.storage_resource);
    let asked = match info.name.is_empty() {
        true => ctx.query.get("limit").and_then(|limit| limit.parse().ok()),
        false => Some(1),
    };
    let sent = asked
        .filter(|asked| *asked > 0)
        .map_or(objects, |asked| objects.min(asked));
    Width::of_seats(list_seats(objects, bytes, sent, most))
}

/// Of `objects` that have so many bytes together, `sent` are sent.
fn list_seats(objects: usize, bytes: usize, sent: usize, most: u32) -> u32 {
    let wide = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let average = wide(bytes) / wide(objects.max(1));
    let held = average.saturating_mul(wide(sent)).min(LIST_BYTES_MAX);
    let seats = u32::try_from(held.div_ceil(BYTES_PER_SEAT)).unwrap_or(u32::MAX);
    seats.clamp(1, most.max(1))
}

/// Few watchers cost nothing. The seats of many are narrowed to what one request may take, and kept longer instead.
fn write(watching: u32, most: u32) -> Width {
    if watching < WATCHERS_PER_SEAT {
        return Width::ONE;
    }
    let seats = watching.div_ceil(WATCHERS_PER_SEAT);
    let last = seats.min(most.max(1));
    Width {
        seats: 1,
        last,
        lingers: EVENT_TIME * seats / last,
    }
}

fn begins_with_state(ctx: &Context) -> bool {
    let version = ctx.query.get("resourceVersion").unwrap_or_default();
    ctx.query.flag("sendInitialEvents") || matches!(version, "" | "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_take_seats_by_their_bytes_and_leave_some_to_others() {
        let rows = [
            ((0, 0, 0), 10, 1),
            ((100, 100_000, 100), 10, 1),
            ((100, 200_000, 100), 10, 2),
            ((100, 200_000, 50), 10, 1),
            // Never more in memory than that.
            ((100_000, 200_000_000, 100_000), 100, 10),
            ((100, 300_000_000, 1), 100, 10),
            ((100, 10_000_000, 100), 4, 4),
            ((100, 10_000_000, 100), 0, 1),
        ];
        for ((objects, bytes, sent), most, wanted) in rows {
            assert_eq!(
                list_seats(objects, bytes, sent, most),
                wanted,
                "{objects} {bytes} {sent}"
            );
        }
    }

    #[test]
    fn writes_take_seats_by_their_watchers_wide_or_long() {
        let millis = |width: Width| (width.seats, width.last, width.lingers.as_millis());
        for (watching, most, wanted) in [
            (0, 10, (1, 0, 0)),
            (9, 10, (1, 0, 0)),
            (10, 10, (1, 1, 5)),
            (11, 10, (1, 2, 5)),
            (100, 10, (1, 10, 5)),
            (1000, 10, (1, 10, 50)),
            (1000, 4, (1, 4, 125)),
            (10, 0, (1, 1, 5)),
        ] {
            assert_eq!(millis(write(watching, most)), wanted, "{watching} watchers");
        }
        let many = write(1000, 10);
        assert_eq!(many.most(), 10);
        assert!((many.work(0.01) - 0.51).abs() < 1e-9);
    }

    #[test]
    fn a_request_leaves_most_of_a_level_to_others() {
        for (nominal, hand, wanted) in [(245, 6, 37), (49, 6, 8), (13, 6, 2), (5, 6, 1), (0, 1, 1), (600, 1, 90)] {
            assert_eq!(widest(nominal, hand), wanted, "{nominal} seats, hands of {hand}");
        }
    }
}
