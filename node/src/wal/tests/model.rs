//! Random lives of a log equal the model.

use super::*;
use proptest::prelude::*;

fn live(seed: u64, steps: u64) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    let mut chance = Chance(seed);
    let mut model = Model::default();
    let (mut wal, _) = open(dir.path());
    let mut synced = true;
    for step in 0..steps {
        match chance.below(10) {
            0..=5 => {
                let batch = model.batch(&mut chance);
                wal.append(&batch).map_err(|error| error.to_string())?;
                model.apply(&batch);
                synced = false;
            }
            6 => {
                wal.sync().map_err(|error| error.to_string())?;
                synced = true;
            }
            7 => {
                model.release(&mut wal, &mut chance);
                wal.trim().map_err(|error| error.to_string())?;
            }
            8 => wal.prepare_spare().map_err(|error| error.to_string())?,
            _ => {
                // Without a power cut even what was not synced is still there.
                drop(wal);
                let (again, recovered) =
                    Wal::open(dir.path(), options()).map_err(|error| error.to_string())?;
                if recovered.verdict != Verdict::Clean {
                    return Err(format!("step {step}: {}", recovered.verdict));
                }
                model
                    .compare(&recovered)
                    .map_err(|why| format!("step {step}, synced {synced}: {why}"))?;
                wal = again;
            }
        }
    }
    drop(wal);
    model.compare(&open(dir.path()).1)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn every_life_equals_the_model(seed in any::<u64>(), steps in 1..120_u64) {
        prop_assert_eq!(live(seed, steps), Ok(()));
    }
}
