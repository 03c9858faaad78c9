//! Every key of a Compose file is taken over or refused with its line.

use super::service::UNSUPPORTED;
use crate::service::Spec;
use crate::service::file::{Read, read};
use crate::service::spec::{HealthCheck, OnFailure, Order, Port, RestartCondition};

fn good(text: &str) -> Read {
    read("compose.yaml", text, false).unwrap_or_else(|faults| panic!("{faults:#?}"))
}

fn faults(text: &str) -> Vec<String> {
    read("compose.yaml", text, false).expect_err("nothing is wrong with it")
}

const WHOLE: &str = "\
version: '3.8'
x-env: &env
  MODE: fast
services:
  web:
    image: web:1
    entrypoint: [\"/web\"]
    command: --listen '0.0.0.0:80 80' -v
    environment:
      <<: *env
      PORT: 80
      PRICE: 5$$
    ports: ['8080:80', {target: 443, published: 443, mode: host}]
    volumes:
      - data:/data
      - {type: volume, source: cache, target: /cache}
    healthcheck:
      test: curl -f localhost
      interval: 1m30s
      retries: 5
    working_dir: /srv
    stop_grace_period: 20s
    labels: [team=a]
    deploy:
      replicas: 3
      labels: {tier: front}
      resources:
        limits: {cpus: '0.5', memory: 256M}
        reservations: {cpus: 0.25}
      restart_policy: {condition: on-failure, delay: 5s, max_attempts: 3, window: 1m}
      update_config: {parallelism: 2, order: start-first, failure_action: rollback, max_failure_ratio: 0.25}
      placement:
        constraints: [node.labels.zone == north, node.hostname != w3, node.role == worker]
        preferences: [{spread: node.labels.rack}]
        max_replicas_per_node: 1
  db:
    command: [./db]
    restart: 'no'
    volumes: ['own:/db']
volumes:
  data:
  cache: {name: shared-cache, driver: local}
  own:
";

#[test]
fn what_we_have_is_taken_over() {
    let file = good(WHOLE);
    let [web, db] = &file.specs[..] else {
        panic!("{file:?}")
    };
    assert_eq!(web.command, ["/web", "--listen", "0.0.0.0:80 80", "-v"]);
    let env = ["MODE", "PORT", "PRICE"].map(|key| web.env[key].as_str());
    assert_eq!(env, ["fast", "80", "5$"]);
    let ports = [(8080, 80), (443, 0)].map(|(host, target)| Port { host, target });
    assert_eq!(web.ports, ports);
    let mounts = web.volumes.iter().map(|one| (&*one.volume, one.shared));
    let mounts: Vec<(&str, bool)> = mounts.collect();
    assert_eq!(mounts, [("data", true), ("shared-cache", true)]);
    let health = web.health.as_ref().unwrap();
    assert_eq!((health.interval_ms, health.retries), (90_000, 5));
    let HealthCheck::Exec { command } = &health.check else {
        panic!("{health:?}")
    };
    assert_eq!(command.join(" "), "/bin/sh -c curl -f localhost");
    assert_eq!((web.replicas, web.stop_grace_ms), (3, 20_000));
    assert_eq!((&*web.labels["team"], &*web.labels["tier"]), ("a", "front"));
    assert_eq!(web.resources.limits.memory_bytes, 256 << 20);
    assert_eq!(web.resources.reservations.cpu_milli, 250);
    assert_eq!(web.restart.condition, RestartCondition::OnFailure);
    assert_eq!((web.restart.delay_ms, web.restart.attempts_max), (5_000, 3));
    let update = &web.update;
    assert_eq!((update.order, update.surge_max), (Order::StartFirst, 2));
    assert_eq!(update.on_failure, OnFailure::Rollback);
    assert_eq!(update.failures_max_percent, 25);
    let rules = ["node.labels.zone == north", "node.name != w3"];
    assert_eq!(web.placement.constraints, rules);
    assert_eq!(web.placement.spread, ["rack"]);
    assert_eq!(web.placement.replicas_per_node_max, 1);
    assert_eq!(db.restart.condition, RestartCondition::Never);
    assert!(db.is_single_writer());
    assert!(
        file.specs.iter().all(|spec| spec.check().is_ok()),
        "{file:?}"
    );
    let notes = file.notes.join("\n");
    assert!(notes.contains("volume own has a single writer"), "{notes}");
    assert!(
        notes.contains("constraints: tasks run on workers anyway"),
        "{notes}"
    );
}

#[test]
fn each_key_that_means_nothing_here_is_refused_with_its_line() {
    for (key, why) in UNSUPPORTED {
        let text = format!("services:\n  web:\n    image: a\n    {key}: 1\n");
        let expected = format!("compose.yaml:4: services.web.{key}: is not supported: {why}");
        assert_eq!(faults(&text), [expected]);
        let ignored = read("compose.yaml", &text, true).unwrap();
        let mut spec = Spec::new("web", &[]);
        spec.image = Some("a".to_owned());
        assert_eq!(ignored.specs, [spec], "{key}");
        let note = format!("compose.yaml:4: services.web.{key}: dropped: {why}");
        assert_eq!(ignored.notes, [note]);
    }
}

/// What follows the image of the service `web`, the line of the fault, words of it.
const WRONG: &[(&str, usize, &str)] = &[
    ("    imgae: b\n", 4, "no key of a Compose file is known"),
    (
        "    environment: [A]\n",
        4,
        "takes its value from the shell",
    ),
    (
        "    environment:\n      A:\n",
        5,
        "takes its value from the shell",
    ),
    (
        "    environment: {A: '${B}'}\n",
        4,
        "variables of the shell are not filled in",
    ),
    ("    ports: ['80']\n", 4, "a port that the system chooses"),
    (
        "    ports: ['127.0.0.1:80:80']\n",
        4,
        "an address to listen on",
    ),
    ("    ports: ['53:53/udp']\n", 4, "only tcp"),
    ("    ports: ['3000-3005:3000-3005']\n", 4, "a range"),
    ("    ports: ['80:http']\n", 4, "is not a port"),
    (
        "    ports: [{target: 80, published: 80, mode: ingress}]\n",
        4,
        "no ingress",
    ),
    ("    ports: [{target: 80}]\n", 4, "needs `published`"),
    (
        "    volumes: ['./src:/src']\n",
        4,
        "a directory of the machine",
    ),
    ("    volumes: ['/cache']\n", 4, "a volume without a name"),
    (
        "    volumes: ['lost:/data']\n",
        4,
        "no volume is called lost",
    ),
    (
        "    volumes: [{type: tmpfs, target: /t}]\n",
        4,
        "mounts of type tmpfs",
    ),
    (
        "    healthcheck: {interval: 5s}\n",
        4,
        "a check of the image's own",
    ),
    (
        "    healthcheck: {test: [curl, x]}\n",
        4,
        "begins with NONE, CMD",
    ),
    ("    healthcheck: {test: x, interval: 5}\n", 4, "is no time"),
    (
        "    healthcheck:\n      test: x\n      start_interval: 1s\n",
        6,
        "checks come fast",
    ),
    ("    stop_signal: SIGINT\n", 4, "SIGTERM"),
    ("    restart: sometimes\n", 4, "takes no, always"),
    ("    command: \"a 'b\"\n", 4, "is not closed"),
    (
        "    deploy: {mode: replicated-job}\n",
        4,
        "there are no jobs yet",
    ),
    ("    deploy: {replicas: three}\n", 4, "is no whole number"),
    ("    deploy: {endpoint_mode: vip}\n", 4, "no ingress"),
    (
        "    deploy:\n      rollback_config: {parallelism: 1}\n",
        5,
        "at the pace of update_config",
    ),
    (
        "    deploy: {resources: {limits: {pids: 5}}}\n",
        4,
        "only processor and memory",
    ),
    (
        "    deploy: {resources: {limits: {memory: much}}}\n",
        4,
        "is no size",
    ),
    (
        "    deploy: {placement: {constraints: [node.role == manager]}}\n",
        4,
        "rules are about",
    ),
    (
        "    deploy: {placement: {constraints: [north]}}\n",
        4,
        "has no == or !=",
    ),
    (
        "    deploy: {placement: {preferences: [{spread: node.id}]}}\n",
        4,
        "node.labels alone",
    ),
    (
        "    deploy: {update_config: {max_failure_ratio: 20}}\n",
        4,
        "is no share",
    ),
    ("networks: {a: {}}\n", 4, "no networks between tasks"),
    ("secrets: {a: {}}\n", 4, "`external: true`"),
    (
        "secrets:\n  a: {file: ./a.txt}\n",
        5,
        "`secret create a --from-file ./a.txt`",
    ),
    ("    secrets: [a]\n", 4, "no secret is called a"),
    (
        "    secrets: [{source: a, uid: '5'}]\nsecrets: {a: {external: true}}\n",
        4,
        "whoever the task runs as",
    ),
    ("configs: {a: {}}\n", 4, "in another way"),
    (
        "volumes:\n  a: {driver: nfs}\n",
        5,
        "a directory on its worker",
    ),
    ("wolumes: {}\n", 4, "no key of a Compose file is known"),
];

#[test]
fn what_is_wrong_or_means_something_else_is_named() {
    for (rest, line, words) in WRONG {
        let found = faults(&format!("services:\n  web:\n    image: a\n{rest}"));
        assert_eq!(found.len(), 1, "{rest}: {found:#?}");
        let place = format!("compose.yaml:{line}: ");
        let right = found[0].starts_with(&place) && found[0].contains(words);
        assert!(right, "{rest}: {found:#?}");
    }
    let several = faults("services:\n  a: {networks: [x], image: a}\n  b: {privileged: true}\n");
    assert_eq!(several.len(), 3, "all at once: {several:#?}");
    let none = ["compose.yaml: there are no services in it"];
    assert_eq!(faults("services: {}\n"), none);
}

#[test]
fn secrets_of_the_cluster_become_files() {
    let text = "services:\n  web:\n    image: a\n    secrets:\n      - key\n      - {source: pass, target: p.txt, mode: 0440}\nsecrets:\n  key: {external: true}\n  pass: {external: true, name: db-pass}\n";
    let file = good(text);
    let secrets = file.specs[0].secrets.iter();
    let secrets: Vec<_> = secrets
        .map(|one| (&*one.secret, &*one.target, one.mode))
        .collect();
    assert_eq!(
        secrets,
        [("key", "key", 0o400), ("db-pass", "p.txt", 0o440)]
    );
    assert!(file.specs[0].check().is_ok());
}
