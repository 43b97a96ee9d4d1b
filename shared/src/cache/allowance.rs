//! How often something may be done, counted in Redis for all environments together.
//!
//! One number a key: the moment at which all that was spent is earned back, if nothing more is (GCRA). It stands for a
//! bucket that fills at an even rate, exact at every moment, where counters of whole minutes let twice as much through
//! at their edges and a list of moments grows with what it counts.

use std::time::Duration;

use redis::cmd;

use super::Cache;
use crate::config::Allowance;

/// Spends one, and answers 0; or answers in how many µs there is one again, and changes nothing. Arguments: the time in
/// µs that one needs to come back, and that of as many as may be spent at once.
///
/// The clock is the server's, which is one for all. A moment that cannot be, written under other settings, by another
/// clock or by nobody knows whom, counts as nothing spent.
const SPEND: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local stored = redis.pcall('GET', KEYS[1])
local settled = type(stored) == 'string' and tonumber(stored) or now
if not (settled >= now and settled <= now + burst) then settled = now end
settled = settled + interval
if settled > now + burst then return settled - burst - now end
redis.call('SET', KEYS[1], string.format('%.0f', settled), 'PX', math.ceil((settled - now) / 1000))
return 0
";

impl Cache {
    /// Spends one of an allowance. Where nothing is left of it: after how long there will be one.
    ///
    /// One round trip. Without Redis, or with one that does not answer as it should, there is always enough.
    pub async fn spend(&self, key: &str, allowance: Allowance) -> Option<Duration> {
        let redis = self.0.as_ref().filter(|redis| redis.link.admits())?;
        let interval = Duration::from_secs(60) / allowance.per_minute.max(1);
        let mut command = cmd("EVAL");
        command.arg(SPEND).arg(1).arg(redis.key(key));
        command.arg(interval.as_micros() as u64).arg((interval * allowance.burst).as_micros() as u64);
        let wait = redis.link.ask::<u64>("spend", &command).await.ok()?;
        (wait > 0).then(|| Duration::from_micros(wait))
    }
}
