//! `lectern run`: everything that `make run` promises, from an empty machine to the line that says it is ready, and back.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use shared::config::{Config, log_settings};
use shared::telemetry::{self, LogSettings};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval_at, sleep};

use crate::api::{Api, InvokeError};
use crate::authorizer::SigningKey;
use crate::demo::{self, Demo};
use crate::error::{Context, Error, Result};
use crate::page::Page;
use crate::say::{note, say};
use crate::server;
use crate::services::Home;
use crate::services::dynamodb::{self, DynamoDb};
use crate::services::postgres::{Postgres, Profile};
use crate::services::redis::{Program, Redis};
use crate::settings::{self, Settings};
use crate::signals::Signals;
use crate::template::{Schedule, Template};
use crate::workspace::{Lock, Workspace};

/// The database within the cluster that is started here.
const DATABASE: &str = "lectern";
/// Where our stand-in for `DynamoDB` keeps it.
const DYNAMODB_FILE: &str = "dynamodb.sqlite";
/// A single person needs no more databases in a Redis than it has by default.
const REDIS_DATABASES: u32 = 16;
/// How long our PostgreSQL stays away when it was killed: long enough to see what happens without it.
const PAUSE: Duration = Duration::from_secs(5);
/// All functions share one process here, and with it one pool.
const DATABASE_CONNECTIONS: &str = "10";

/// Runs the API until a signal comes.
///
/// # Errors
/// When something that it needs is not there or cannot be started.
pub async fn run(workspace: &Workspace, settings: &Settings) -> Result<()> {
    let mut signals = Signals::listen()?;
    let state = workspace.state()?;
    let lock = claim(&state)?;
    let listener = bind(settings.port).await?;
    let address = listener.local_addr().context(|| "the port is not known")?;
    lock.sign(&format!("process {}, http://{address}", std::process::id()))?;
    telemetry::init(&LogSettings { json: false, metrics: false, level: settings.log_level.clone(), ..log_settings() });
    let template = Template::read(&workspace.template())?;

    // A signal may come while all this is still being made ready; what was started by then must be stopped, too.
    let mut servers = Servers::default();
    let ready = tokio::select! {
        ready = make_ready(&mut servers, &state, &template, settings) => ready.map(Some),
        _ = signals.next() => Ok(None),
    };
    let ended = match ready {
        Ok(Some(api)) => {
            say(format!("Lectern is ready on http://{address}"));
            let (page, _fetching) = Page::with_viewer(workspace.root(), state);
            serve(listener, api, page, &mut servers, &mut signals).await
        }
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    servers.stop().await.and(ended)
}

/// One run a directory: two would fight over the database's files.
fn claim(state: &Path) -> Result<Lock> {
    let lock = Lock::take(&state.join("run.lock"))?
        .map_err(|holder| Error::new(format!("Lectern is running in this directory already ({holder})")))?;
    lock.sign(&format!("process {}", std::process::id()))?;
    Ok(lock)
}

/// Takes the port before the slow work, so that a port that is taken is told at once. Clients wait until all is ready.
async fn bind(port: u16) -> Result<TcpListener> {
    TcpListener::bind(("127.0.0.1", port))
        .await
        .context(|| format!("port {port} of 127.0.0.1 cannot be used; choose another one with PORT=… make run"))
}

/// Starts what is missing, migrates, loads the demo, and puts the API together.
async fn make_ready(servers: &mut Servers, state: &Path, template: &Template, settings: &Settings) -> Result<Arc<Api>> {
    let urls = servers.start(state, settings).await?;
    let config = read_config(&urls)?;
    if let Some(parking) = &config.parking {
        dynamodb::ensure_table(parking).await?;
    }
    // Making a key takes a moment of pure computing.
    let key_file = state.join("token-key.pem");
    let key = tokio::task::spawn_blocking(move || SigningKey::load_or_generate(&key_file)).await;
    let key = key.context(|| "no key could be made")??;
    let api = Arc::new(Api::over(config, template, key)?);
    migrate(&api).await?;
    load_demo(&api, state).await;
    Ok(api)
}

/// The functions' own configuration, with the servers that are used here.
fn read_config(urls: &Urls) -> Result<Config> {
    Config::from_lookup(|name| match name {
        "DATABASE_URL" => Some(urls.database.clone()),
        "REDIS_URL" => urls.redis.clone(),
        "AWS_ENDPOINT_URL_DYNAMODB" => Some(urls.dynamodb.clone()),
        "PARKING_TABLE" => settings::read(name).or_else(|| Some(dynamodb::PARKING_TABLE.to_owned())),
        "DATABASE_CONNECTIONS" => settings::read(name).or_else(|| Some(DATABASE_CONNECTIONS.to_owned())),
        _ => settings::read(name),
    })
    .context(|| "the environment cannot be used")
}

async fn migrate(api: &Api) -> Result<()> {
    let result = api.invoke("migrate", json!({})).await;
    let done = result.map_err(|error| Error::new(shown(&error))).context(|| "the database could not be migrated")?;
    let applied = done["applied"].as_array().map_or(0, Vec::len);
    if applied > 0 {
        say(format!("Applied {applied} migrations; the schema is at version {}.", done["version"]));
    }
    Ok(())
}

/// A demo that cannot be loaded is no reason not to run.
async fn load_demo(api: &Api, state: &Path) {
    match demo::load_once(api, state).await {
        Ok(Demo::Loaded) => say("Loaded the demo courses, written by ada and taken by alice, ben, chen and others."),
        Ok(Demo::Outdated) => say("The demo of another version was loaded half; it stays as it is."),
        Ok(Demo::Known | Demo::Unwanted) => {}
        Err(error) => {
            note(format!("The demo courses could not be loaded; the next start tries again: {}", error.report()))
        }
    }
}

/// Serves until a signal comes. Our PostgreSQL may die meanwhile: progress is parked until it has been started again.
async fn serve(
    listener: TcpListener,
    api: Arc<Api>,
    page: Page,
    servers: &mut Servers,
    signals: &mut Signals,
) -> Result<()> {
    let schedules = start_schedules(&api);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(server::serve(listener, api, page, async move { drop(stopped.await) }));
    let ended = tokio::select! {
        _ = signals.next() => Ok(()),
        error = servers.watch() => Err(error),
    };
    drop(schedules);
    drop(stop);
    serving.await.context(|| "the server broke")?;
    ended
}

/// Runs the scheduled functions as their schedules say, for as long as the set lives.
fn start_schedules(api: &Arc<Api>) -> JoinSet<()> {
    let mut schedules = JoinSet::new();
    for function in &api.template().functions {
        for schedule in &function.schedules {
            schedules.spawn(repeat(api.clone(), function.binary.clone(), schedule.clone()));
        }
    }
    schedules
}

async fn repeat(api: Arc<Api>, binary: String, Schedule { every, event }: Schedule) {
    let mut ticks = interval_at(Instant::now() + every, every);
    loop {
        ticks.tick().await;
        if let Err(error) = api.invoke(&binary, event.clone()).await {
            note(format!("{binary} failed: {}", shown(&error)));
        }
    }
}

fn shown(error: &InvokeError) -> String {
    match error {
        InvokeError::Unknown => "there is no such function".to_owned(),
        InvokeError::Failed { error_type, message } => format!("{error_type}: {message}"),
    }
}

/// The servers that were started here, and nothing else.
#[derive(Default)]
struct Servers {
    home: Option<Home>,
    postgres: Option<Postgres>,
    redis: Option<Redis>,
    dynamodb: Option<DynamoDb>,
}

/// Where the servers are that are used.
struct Urls {
    database: String,
    redis: Option<String>,
    dynamodb: String,
}

impl Servers {
    /// Starts what the settings do not name, and answers the URLs of what is used.
    async fn start(&mut self, state: &Path, settings: &Settings) -> Result<Urls> {
        let database = match &settings.database_url {
            Some(url) => {
                say("PostgreSQL: the one of DATABASE_URL.");
                url.clone()
            }
            None => self.start_postgres(state).await?,
        };
        let redis = match &settings.redis_url {
            Some(url) => {
                say("Redis: the one of REDIS_URL.");
                Some(url.clone())
            }
            None => self.start_redis(state).await?,
        };
        let dynamodb = match &settings.dynamodb_url {
            Some(url) => {
                say("DynamoDB: the one of AWS_ENDPOINT_URL_DYNAMODB.");
                url.clone()
            }
            None => self.start_dynamodb(state).await?,
        };
        Ok(Urls { database, redis, dynamodb })
    }

    async fn start_postgres(&mut self, state: &Path) -> Result<String> {
        let home = self.home.insert(Home::prepare(state).await?);
        home.notice().into_iter().for_each(say);
        let postgres = self.postgres.insert(Postgres::start(home, Profile::Durable).await?);
        postgres.ensure_database(DATABASE).await?;
        say(format!("PostgreSQL: our own on {}, its data in {}.", postgres.address(), home.path().display()));
        Ok(postgres.url(DATABASE))
    }

    async fn start_redis(&mut self, state: &Path) -> Result<Option<String>> {
        let home = Home::prepare(state).await?;
        let program = match Program::find_or_fetch(&home).await {
            Ok(program) => program,
            Err(error) => {
                say(format!("{error}. Nothing is cached."));
                return Ok(None);
            }
        };
        let redis = self.redis.insert(Redis::start(&home, &program, REDIS_DATABASES).await?);
        say(format!("Redis: our own on {}.", redis.address()));
        Ok(Some(redis.url()))
    }

    async fn start_dynamodb(&mut self, state: &Path) -> Result<String> {
        let file = state.join(DYNAMODB_FILE);
        let dynamodb = self.dynamodb.insert(DynamoDb::start(Some(&file)).await?);
        say(format!("DynamoDB: a stand-in on {}, its data in {}.", dynamodb.address(), file.display()));
        Ok(dynamodb.url())
    }

    /// Starts our PostgreSQL again whenever it ends; ends when that cannot be done. Without a Redis, everything goes on.
    async fn watch(&mut self) -> Error {
        let (Some(postgres), Some(home)) = (&mut self.postgres, &self.home) else {
            return std::future::pending().await;
        };
        loop {
            let how = postgres.ended().await;
            note(format!("{how}. Progress is parked until it is back; it is started again in {} s.", PAUSE.as_secs()));
            sleep(PAUSE).await;
            match postgres.restart(home, Profile::Durable).await {
                Ok(()) => say(format!("PostgreSQL: back on {}.", postgres.address())),
                Err(error) => return error,
            }
        }
    }

    async fn stop(self) -> Result<()> {
        if let Some(redis) = self.redis {
            redis.stop().await?;
        }
        if let Some(postgres) = self.postgres {
            postgres.stop().await?;
        }
        Ok(())
    }
}
