//! A cluster of Redis that is in trouble: answers stay right, and the cache comes back. What a cluster in good health
//! does, `caching` tells.

use std::time::Duration;

use local::services::redis::Cluster;
use redis::{aio::MultiplexedConnection, cmd};
use reqwest::StatusCode;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use shared::{config::Redis, courses};
use tokio::time::{sleep, timeout};

use crate::{
    redis_servers::{cluster, connect, on_cluster},
    support::{Course, Lectern, event},
};

const OK: StatusCode = StatusCode::OK;
/// Far more than a cluster, or the cache's pause after a failure, takes.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks.
const GLANCE: Duration = Duration::from_millis(20);

/// A Lectern on a cluster of its own, and a course in which alice is enrolled.
struct Class {
    cluster: Cluster,
    lectern: Lectern,
    course: Course,
    /// What has been written so far: seconds of work, and the versions of the course.
    written: i64,
}

impl Class {
    async fn start() -> Self {
        let cluster = cluster().await;
        let redis = on_cluster(Redis::at(&cluster.url()));
        let lectern = Lectern::start_with(|config| config.redis = Some(redis)).await;
        let course = lectern.course("teacher", &[1]).await;
        lectern.learner("alice").enrol(&course).await.expect(StatusCode::CREATED);
        Self { cluster, lectern, course, written: 0 }
    }

    fn paths(&self) -> [String; 3] {
        let detail = format!("/courses/{}", self.course.id);
        ["/courses".to_owned(), format!("{detail}/progress"), detail]
    }

    /// Writes whatever is cached, and finds it written in every environment, the first time and when cached again.
    async fn write_and_read(&mut self, environments: &[&Lectern]) {
        self.written += 1;
        let (number, [list, summary, detail]) = (self.written, self.paths());
        let writer = environments[0];
        writer.learner("alice").record(&[event(&self.course.sections[0], 1, false)]).await.expect(OK);
        let title = format!("Title {number}");
        writer.teacher("teacher").patch(&detail, number, &json!({ "title": title })).await.expect(OK);
        for _ in 0..2 {
            for reader in environments.iter().map(|environment| environment.learner("alice")) {
                assert_eq!(reader.get(&list).await.expect(OK)["courses"][0]["title"], title.as_str());
                let summary = reader.get(&summary).await.expect(OK);
                assert_eq!((&summary["totalTimeSpent"], &summary["courseTitle"]), (&json!(number), &json!(title)));
                assert_eq!(reader.get(&detail).await.expect(OK)["title"], title.as_str());
            }
        }
    }

    /// Waits until everything that is cached comes from the cache.
    async fn wait_for_hits(&self, lectern: &Lectern) {
        let alice = lectern.learner("alice");
        let hits = async {
            for path in self.paths() {
                while alice.get(&path).await.header("x-cache") != "hit" {
                    sleep(GLANCE).await;
                }
            }
        };
        timeout(PATIENCE, hits).await.expect("the cache works");
    }

    async fn nodes(&self) -> Vec<MultiplexedConnection> {
        let mut nodes = Vec::new();
        for node in self.cluster.nodes() {
            nodes.push(connect(&node.url()).await);
        }
        nodes
    }

    /// The slot of the course, and which of the nodes has it.
    async fn slot(&self) -> (u16, usize) {
        let key = courses::generation(self.course.id.parse().unwrap()).0;
        let slot: u16 = cmd("CLUSTER").arg("KEYSLOT").arg(key).query_async(&mut self.nodes().await[0]).await.unwrap();
        (slot, usize::from(slot) * self.cluster.nodes().len() / 16_384)
    }
}

#[tokio::test]
async fn a_write_is_seen_though_every_node_dropped_its_connections_before_it() {
    let mut class = Class::start().await;
    let here = class.lectern.another().await;
    let there = class.lectern.another().await;
    for _ in 0..3 {
        class.wait_for_hits(&here).await;
        class.wait_for_hits(&there).await;
        for mut node in class.nodes().await {
            let killed: u32 = cmd("CLIENT").arg(&["KILL", "TYPE", "normal"]).query_async(&mut node).await.unwrap();
            assert!(killed >= 2, "{killed}");
        }
        class.write_and_read(&[&here, &there]).await;
    }
    class.cluster.stop().await.unwrap();
}

#[tokio::test]
async fn answers_stay_right_while_a_slot_moves_to_another_node() {
    let mut class = Class::start().await;
    let (slot, from) = class.slot().await;
    let to = (from + 1) % 3;
    let nodes = &mut class.nodes().await;
    let mut ids: Vec<String> = Vec::new();
    for node in nodes.iter_mut() {
        ids.push(cmd("CLUSTER").arg("MYID").query_async(node).await.unwrap());
    }
    let old = class.lectern.another().await;
    class.wait_for_hits(&old).await;
    let set_slot = async |node: &mut MultiplexedConnection, state: &str, id: &str| {
        cmd("CLUSTER").arg("SETSLOT").arg(slot).arg(state).arg(id).exec_async(node).await.unwrap();
    };
    let url = class.cluster.nodes()[to].url();
    let (password, port) = url.trim_start_matches("redis://:").split_once("@127.0.0.1:").unwrap();
    let move_keys = async |node: &mut MultiplexedConnection, keys: &[String]| {
        let mut command = cmd("MIGRATE");
        command.arg(&["127.0.0.1", port, "", "0", "5000", "REPLACE", "AUTH", password, "KEYS"]).arg(keys);
        command.exec_async(node).await.unwrap();
    };
    let keys = async |node: &mut MultiplexedConnection| {
        let mut command = cmd("CLUSTER");
        command.arg("GETKEYSINSLOT").arg(slot).arg(100);
        command.query_async::<Vec<String>>(node).await.unwrap()
    };

    set_slot(&mut nodes[to], "IMPORTING", &ids[from]).await;
    set_slot(&mut nodes[from], "MIGRATING", &ids[to]).await;
    // An environment that was there before, and one that begins with no failures, at each stage.
    class.write_and_read(&[&class.lectern.another().await, &old]).await;
    // Then one key after the other goes: what belongs together is on both nodes.
    loop {
        let left = keys(&mut nodes[from]).await;
        let Some(next) = left.first() else { break };
        move_keys(&mut nodes[from], std::slice::from_ref(next)).await;
        class.write_and_read(&[&class.lectern.another().await, &old]).await;
    }
    set_slot(&mut nodes[to], "NODE", &ids[to]).await;
    class.write_and_read(&[&class.lectern.another().await, &old]).await;
    set_slot(&mut nodes[from], "NODE", &ids[to]).await;
    class.write_and_read(&[&class.lectern.another().await, &old]).await;
    class.wait_for_hits(&old).await;
    assert!(!keys(&mut nodes[to]).await.is_empty());
    class.cluster.stop().await.unwrap();
}

#[tokio::test]
async fn answers_stay_right_while_a_node_is_dead_and_when_others_have_its_slots() {
    let mut class = Class::start().await;
    let (_, dead) = class.slot().await;
    let (here, there) = (class.lectern.another().await, class.lectern.another().await);
    class.wait_for_hits(&here).await;
    class.wait_for_hits(&there).await;
    let mut alive = class.nodes().await;
    alive.remove(dead);
    let id = class.cluster.nodes()[dead].id().and_then(|id| Pid::from_raw(id.cast_signed())).unwrap();
    kill_process(id, Signal::KILL).unwrap();
    // First the others do not know it, then the cluster takes no commands at all.
    let mut is_noticed = false;
    while !is_noticed {
        class.write_and_read(&[&here, &there]).await;
        let info: String = cmd("CLUSTER").arg("INFO").query_async(&mut alive[0]).await.unwrap();
        is_noticed = info.contains("cluster_state:fail");
    }
    class.write_and_read(&[&here, &there]).await;

    let heir: String = cmd("CLUSTER").arg("MYID").query_async(&mut alive[0]).await.unwrap();
    let share = |node: usize| node * 16_384 / 3;
    for node in &mut alive {
        let mut takeover = redis::pipe();
        for slot in share(dead)..share(dead + 1) {
            takeover.cmd("CLUSTER").arg("SETSLOT").arg(slot).arg("NODE").arg(&heir).ignore();
        }
        takeover.exec_async(node).await.unwrap();
    }
    class.write_and_read(&[&here, &there]).await;
    class.wait_for_hits(&here).await;
    class.wait_for_hits(&there).await;
    class.write_and_read(&[&here, &there]).await;
    class.cluster.stop().await.unwrap();
}
