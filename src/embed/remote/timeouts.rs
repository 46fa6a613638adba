//! How long a request may take, from what the last ones took.

use std::time::Duration;

/// Times its expected time that a request may take.
const PATIENCE: f64 = 8.0;
/// Weight of a request that was slower than expected, and of one that was faster: trust is lost quickly.
const SLOWER: f64 = 0.5;
const FASTER: f64 = 0.1;

/// The time that a token takes, and what follows for a request.
#[derive(Debug, Clone)]
pub(super) struct Timeouts {
    shortest: Duration,
    longest: Duration,
    /// None until something was measured.
    seconds_per_token: Option<f64>,
}

impl Timeouts {
    /// Every timeout lies between these.
    pub(super) fn new(shortest: Duration, longest: Duration) -> Self {
        Self {
            shortest,
            longest,
            seconds_per_token: None,
        }
    }

    /// How long a request with this many tokens may take: the longest until one was answered.
    pub(super) fn of(&self, tokens: usize) -> Duration {
        let Some(per_token) = self.seconds_per_token else {
            return self.longest;
        };
        let seconds = PATIENCE * per_token * tokens as f64;
        Duration::try_from_secs_f64(seconds)
            .unwrap_or(self.longest)
            .clamp(self.shortest, self.longest)
    }

    /// A request with this many tokens was answered.
    pub(super) fn observe(&mut self, tokens: usize, elapsed: Duration) {
        let measured = elapsed.as_secs_f64() / tokens.max(1) as f64;
        self.seconds_per_token = Some(match self.seconds_per_token {
            None => measured,
            Some(known) => {
                let weight = if measured > known { SLOWER } else { FASTER };
                known + weight * (measured - known)
            }
        });
    }

    /// A request took too long, so the next may take twice as long.
    pub(super) fn missed(&mut self) {
        if let Some(known) = &mut self.seconds_per_token {
            *known *= 2.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_timeout_follows_the_time_of_a_token_between_its_bounds() {
        let mut timeouts = Timeouts::new(SECOND, SECOND * 100);
        assert_eq!(timeouts.of(1), SECOND * 100, "nothing is known yet");
        timeouts.observe(1_000, SECOND);
        assert_eq!(timeouts.of(1_000), SECOND * 8);
        assert_eq!(timeouts.of(10), SECOND, "the shortest");
        assert_eq!(timeouts.of(1_000_000), SECOND * 100, "the longest");
    }

    #[test]
    fn slowness_is_believed_sooner_than_speed_and_a_timeout_doubles_the_next() {
        let mut timeouts = Timeouts::new(SECOND, SECOND * 1_000);
        timeouts.observe(1_000, SECOND);
        timeouts.observe(1_000, SECOND * 3);
        assert_eq!(timeouts.of(1_000), SECOND * 16);
        timeouts.observe(1_000, SECOND);
        assert!(timeouts.of(1_000) > SECOND * 15);
        let before = timeouts.of(1_000);
        timeouts.missed();
        assert_eq!(timeouts.of(1_000), before * 2);
    }
}
