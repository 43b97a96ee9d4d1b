//! A look behind the cache into its servers, and clusters of a test's own, to be hurt.

use std::{path::Path, time::Duration};

use local::services::{
    Home,
    redis::{Cluster, Program},
};
use redis::{AsyncConnectionConfig, aio::MultiplexedConnection};
use shared::config::Redis;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::support::required;

/// Far more than a cluster takes.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often one that is not ready is looked at.
const GLANCE: Duration = Duration::from_millis(20);

/// A cluster, which has no numbers, with a prefix that nobody else uses.
pub(crate) fn on_cluster(settings: Redis) -> Redis {
    Redis { is_cluster: true, prefix: format!("test-{}", Uuid::now_v7().simple()), ..settings }
}

/// A cluster that no other test uses. Where the test forgets it, it ends with the run.
pub(crate) async fn cluster() -> Cluster {
    let home = Home::prepare(Path::new(&required("LECTERN_TEST_HOME"))).await.unwrap();
    let program = Program::at(Path::new(&required("LECTERN_TEST_REDIS_SERVER")));
    let cluster = Cluster::start(&home, &program).await.unwrap();
    wait_until_ready(&cluster.url()).await;
    cluster
}

/// Waits until every node of a cluster takes commands and knows who has which slots.
pub(crate) async fn wait_until_ready(url: &str) {
    let ready = async {
        while !is_ready(url).await {
            sleep(GLANCE).await;
        }
    };
    timeout(PATIENCE, ready).await.expect("the cluster gets ready");
}

async fn is_ready(url: &str) -> bool {
    let mut nodes = nodes(&on_cluster(Redis::at(url))).await;
    for node in &mut nodes {
        let info: String = redis::cmd("CLUSTER").arg("INFO").query_async(node).await.unwrap();
        if !["cluster_state:ok", "cluster_known_nodes:3"].iter().all(|fact| info.contains(fact)) {
            return false;
        }
    }
    nodes.len() == 3
}

/// Connections to the one Redis, or to all nodes of the cluster.
pub(crate) async fn nodes(settings: &Redis) -> Vec<MultiplexedConnection> {
    let mut first = connect(&settings.url).await;
    if !settings.is_cluster {
        return vec![first];
    }
    let (server, _) = settings.url.rsplit_once(':').unwrap();
    let listed: String = redis::cmd("CLUSTER").arg("NODES").query_async(&mut first).await.unwrap();
    let mut nodes = Vec::new();
    for line in listed.lines().filter(|line| !line.contains("fail") && !line.contains("handshake")) {
        // `<id> 127.0.0.1:<port>@<port of the bus> …`, where a node alone may not know its own address.
        let port = line.split([':', '@']).nth(1).unwrap();
        nodes.push(connect(&format!("{server}:{port}")).await);
    }
    nodes
}

/// A connection to one server, which may take its time: to save what it has, for example.
pub(crate) async fn connect(url: &str) -> MultiplexedConnection {
    let patient =
        AsyncConnectionConfig::new().set_connection_timeout(Some(PATIENCE)).set_response_timeout(Some(PATIENCE));
    redis::Client::open(url).unwrap().get_multiplexed_async_connection_with_config(&patient).await.unwrap()
}
