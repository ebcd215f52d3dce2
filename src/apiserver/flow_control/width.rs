//! How many seats a request takes (upstream: `flowcontrol/request/list_work_estimator.go`): lists take them by what they
//! send, all else takes one. Writes take no more where many watch, as upstream's do: a crowd is sent its events in groups.

use super::level::Level;
use crate::apiserver::context::Context;

const OBJECTS_PER_SEAT: usize = 100;
/// Of a level's limit one request takes at most this part.
const LEVEL_PART: u32 = 7;
const SEATS_MAX: u32 = 10;

/// At this level.
pub fn of(ctx: &Context, level: &Level) -> u32 {
    let info = &ctx.info;
    if !info.is_resource_request || !info.name.is_empty() || !sends_many(ctx) {
        return 1;
    }
    let registry = &ctx.server.registry;
    let Some(kind) = registry.lookup(&info.api_group, &info.api_version, &info.resource) else {
        return 1;
    };
    let stored = ctx.storage().objects(kind.storage_resource);
    let asked = ctx.query.get("limit").and_then(|limit| limit.parse().ok());
    let sent = asked
        .filter(|asked| *asked > 0)
        .map_or(stored, |asked: usize| asked.min(stored));
    seats(sent, level.limit())
}

fn seats(objects: usize, limit: u32) -> u32 {
    let seats = objects.div_ceil(OBJECTS_PER_SEAT);
    let most = (limit / LEVEL_PART).clamp(1, SEATS_MAX);
    u32::try_from(seats).unwrap_or(u32::MAX).clamp(1, most)
}

/// Lists, and watches that begin with the state.
fn sends_many(ctx: &Context) -> bool {
    match ctx.info.verb.as_str() {
        "list" => true,
        "watch" => {
            let named = ctx
                .query
                .get("resourceVersion")
                .is_some_and(|version| !matches!(version, "" | "0"));
            !named
                || ctx
                    .query
                    .get("sendInitialEvents")
                    .is_some_and(|_| ctx.query.flag("sendInitialEvents"))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_take_seats_by_their_length_and_leave_some_to_others() {
        let rows = [
            (0, 74, 1),
            (100, 74, 1),
            (101, 74, 2),
            (10_000, 74, 10),
            (10_000, 13, 1),
            (10_000, 0, 1),
        ];
        for (objects, limit, wanted) in rows {
            assert_eq!(seats(objects, limit), wanted, "{objects} at {limit}");
        }
    }
}
