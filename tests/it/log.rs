//! What is logged while a test runs. There is one subscriber for all tests, because `tracing` remembers for all threads
//! whether anybody listens; each test sees what was logged on its own thread, on which its servers run, too.

use std::{cell::RefCell, sync::Once};

use serde_json::Value;
use shared::telemetry::{self, LogSettings};

thread_local! {
    static HEARD: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// All that is logged on this thread, from its making to its end.
#[derive(Debug)]
pub(crate) struct Log(());

impl Log {
    /// Begins to listen.
    pub(crate) fn listen() -> Self {
        static SUBSCRIBED: Once = Once::new();
        SUBSCRIBED.call_once(|| {
            let settings = LogSettings {
                json: true,
                level: "info".to_owned(),
                service: "school-a".to_owned(),
                function: "tests".to_owned(),
                metrics: true,
            };
            telemetry::init_to(&settings, |line| {
                HEARD.with_borrow_mut(|heard| {
                    heard.iter_mut().for_each(|heard| heard.push_str(&String::from_utf8_lossy(line)))
                });
            });
            // Somebody may have asked, and been told that nobody listens, while that was on its way.
            tracing::callsite::rebuild_interest_cache();
        });
        HEARD.set(Some(String::new()));
        Self(())
    }

    /// As it was written.
    pub(crate) fn text(&self) -> String {
        HEARD.with_borrow(|heard| heard.clone().unwrap_or_default())
    }

    /// Line by line.
    pub(crate) fn lines(&self) -> Vec<Value> {
        self.text().lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }

    /// The summaries of invocations that have been written since this was asked last.
    pub(crate) fn new_summaries(&self) -> Vec<Value> {
        let lines = self.lines();
        HEARD.set(Some(String::new()));
        lines.into_iter().filter(|line| line.get("_aws").is_some()).collect()
    }

    /// The one of them.
    #[track_caller]
    pub(crate) fn new_summary(&self) -> Value {
        let mut summaries = self.new_summaries();
        assert_eq!(summaries.len(), 1, "{summaries:?}");
        summaries.remove(0)
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        HEARD.set(None);
    }
}
