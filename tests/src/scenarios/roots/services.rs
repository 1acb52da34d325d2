//! Services do real work from shared images while limits change and the balloon works.

use super::{COMMAND_MAX, MIB, SERVICES, run};
use crate::engine::Engine;
use crate::host::Host;
use crate::linux::{Images, Linux, LinuxGuest};
use crate::wait;
use anyhow::{Context, Result, ensure};
use guest_images::Agent;

/// Keys written before the limits change and read back afterwards.
const KEYS: u32 = 2000;
/// Rounds of a lowered and a raised limit.
const ROUNDS: usize = 3;

/// Waits for a program that was started.
fn ended(agent: &mut Agent, name: &str) -> Result<String> {
    let ran = agent.wait(name, COMMAND_MAX)?;
    ensure!(ran.ended && ran.code == 0, "{name}: {ran:?}");
    Ok(ran.output)
}

fn redis(agent: &mut Agent) -> Result<String> {
    agent.start("redis", "redis-server --save '' --appendonly no")?;
    run(agent, "until redis-cli ping | grep -q PONG; do sleep 0.3; done")?;
    run(
        agent,
        &format!("seq 1 {KEYS} | awk '{{print \"SET key:\"$1\" value:\"$1*7919}}' | redis-cli --pipe"),
    )?;
    // Something to lose when the limit falls.
    run(agent, "redis-cli setrange large 67108863 x")?;
    keys(agent)
}

/// A checksum of every value, by key, and the length of the large one.
fn keys(agent: &mut Agent) -> Result<String> {
    let read =
        format!("seq 1 {KEYS} | awk '{{print \"GET key:\"$1}}' | redis-cli | cksum; redis-cli strlen large");
    run(agent, &read)
}

fn postgres(agent: &mut Agent) -> Result<()> {
    let server =
        "runuser -u postgres -- postgres -D /var/lib/postgresql/15/main -k /tmp -c jit=off -c fsync=off";
    agent.start("postgres", server)?;
    run(agent, "until pg_isready -q -h /tmp; do sleep 0.3; done")?;
    run(agent, "createdb -U postgres -h /tmp bench && pgbench -U postgres -h /tmp -i -s 1 -q bench")?;
    Ok(())
}

/// What pgbench promises: all balances and the history sum to the same amount. `t`, and the transactions.
fn balances(agent: &mut Agent) -> Result<String> {
    let sums = "select (select sum(abalance) from pgbench_accounts) = sum(delta) and \
                (select sum(tbalance) from pgbench_tellers) = sum(delta) and \
                (select sum(bbalance) from pgbench_branches) = sum(delta), count(*) from pgbench_history";
    run(agent, &format!("psql -U postgres -h /tmp -Atc '{sums}' bench"))
}

pub fn services_under_limits(images: &Images) -> Result<()> {
    let host = Host::with_store(&images.library)?;
    let root = images.root(&SERVICES)?;
    let start = |name: &str, container: &str| -> Result<(LinuxGuest, Agent)> {
        let limit = Engine::current().limit_mib(480);
        let flags = ["--container", container, "--container-limit", &limit, "--root", &root];
        let linux = Linux { flags: &flags, ..Linux::default() }.start(&host, images, name)?;
        let agent = linux.agent()?;
        Ok((linux, agent))
    };
    let (cache, mut a) = start("cache", "/web/cache")?;
    let (db, mut b) = start("db", "/web/db")?;
    let before = redis(&mut a)?;
    postgres(&mut b)?;

    a.start(
        "bench",
        "redis-benchmark -q -c 4 -n 6000 -t set,get,lpush,lpop | tr '\\r' '\\n' | grep 'per second'",
    )?;
    b.start("bench", "pgbench -U postgres -h /tmp -c 2 -t 150 bench")?;
    for round in 0..ROUNDS {
        for max in [220, 480] {
            host.set_max("/web/cache", Engine::current().limit(max * MIB))?;
            host.set_max("/web/db", Engine::current().limit(max * MIB))?;
            for name in ["cache", "db"] {
                host.ticks(name, 4)?;
            }
            for linux in [&cache, &db] {
                host.assert_near_kernel(&linux.guest).with_context(|| format!("round {round}, {max}M"))?;
            }
        }
    }
    println!("redis: {}", ended(&mut a, "bench")?.trim().replace('\n', "; "));
    let said = ended(&mut b, "bench")?;
    let line = |start: &str| said.lines().find(|line| line.starts_with(start)).unwrap_or_default().to_owned();
    println!("postgres: {}; {}", line("number of transactions actually"), line("tps"));

    // With the limit low: the balloon must have worked, and nothing may be lost.
    for container in ["/web/cache", "/web/db"] {
        host.set_max(container, Engine::current().limit(220 * MIB))?;
    }
    for name in ["cache", "db"] {
        wait::until(
            "the balloon holds what is above the limit",
            // A guest that ran out of memory just now is left alone for 30 s.
            &host,
            || host.get(&format!("/v1/guests/{name}")),
            |guest| guest["balloon"]["actual_bytes"].as_u64().is_some_and(|bytes| bytes <= 224 * MIB),
        )?;
    }
    ensure!(keys(&mut a)? == before, "redis lost keys");
    let sums = balances(&mut b)?;
    ensure!(sums == "t|300", "pgbench's balances and transactions: {sums}");
    for agent in [&mut a, &mut b] {
        ensure!(agent.vmstat("oom_kill")? == 0, "a program was killed");
    }
    Ok(())
}
