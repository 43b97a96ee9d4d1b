//! The floor of a cached read: what the empty function does, and one GET of `FLOOR_KEY` from the Redis at `REDIS_URL`,
//! whose bytes it answers.

use std::{convert::Infallible, env};

use lambda_http::{Body, Error, Request, Response, run_concurrent, service_fn};
use redis::{AsyncCommands, Client};

#[expect(clippy::disallowed_methods, reason = "not a function of Lectern's: it has no configuration but this")]
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let redis = Client::open(env::var("REDIS_URL")?)?.get_multiplexed_async_connection().await?;
    let key = env::var("FLOOR_KEY")?;
    run_concurrent(service_fn(move |_: Request| {
        let (mut redis, key) = (redis.clone(), key.clone());
        async move {
            let value: String = redis.get(key).await.unwrap_or_default();
            Ok::<_, Infallible>(Response::new(Body::from(value)))
        }
    }))
    .await
}
