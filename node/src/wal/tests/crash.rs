//! Power cuts: every sector that was not synced is old or new, as the disk pleases.
//!
//! The images before and after say which sectors those are. What was synced must come back exactly, of what was not a whole
//! number of batches, and never as damage.

use super::*;

/// The sectors in which two images of a log differ. A file that is only in the newer one was made ready in between, so
/// its older contents are zeros.
fn differences(old: &Image, new: &Image) -> Vec<(String, usize)> {
    let mut places = Vec::new();
    for (name, bytes) in new {
        let zeros = vec![0; bytes.len()];
        let before = old.get(name).unwrap_or(&zeros);
        assert_eq!(before.len(), bytes.len(), "{name} changed its length");
        let sectors = before.chunks(SECTOR).zip(bytes.chunks(SECTOR));
        let differ = sectors.enumerate().filter(|(_, (old, new))| old != new);
        places.extend(differ.map(|(at, _)| (name.clone(), at)));
    }
    places
}

/// `new`, with those of `places` that `keep` refuses taken from `old`.
fn torn(
    old: &Image,
    new: &Image,
    places: &[(String, usize)],
    mut keep: impl FnMut(usize) -> bool,
) -> Image {
    let mut mixed = new.clone();
    for (place, (name, sector)) in places.iter().enumerate() {
        if keep(place) {
            continue;
        }
        let range = sector * SECTOR..(sector + 1) * SECTOR;
        let zeros = vec![0; SECTOR];
        let before = old
            .get(name)
            .map_or(&zeros[..], |file| &file[range.clone()]);
        mixed.get_mut(name).unwrap()[range].copy_from_slice(before);
    }
    mixed
}

/// Opens the mixed image: one of `models` (oldest first) must come back, and the log must go on from there.
fn survives(path: &Path, mixed: &Image, models: &[Model], chance: &mut Chance) -> usize {
    restore(path, mixed);
    let (mut wal, recovered) = open(path);
    let fits = |model: &Model| model.compare(&recovered).is_ok();
    let Some(at) = models.iter().rposition(fits) else {
        panic!(
            "nothing fits: {:?} {:?}",
            recovered.verdict,
            models[0].compare(&recovered)
        );
    };
    let mut model = models[at].clone();
    for _ in 0..2 {
        let batch = model.batch(chance);
        wal.append_and_sync(&batch).unwrap();
        model.apply(&batch);
    }
    drop(wal);
    let (_, again) = open(path);
    assert_eq!(again.verdict, Verdict::Clean);
    model.compare(&again).unwrap();
    at
}

/// Appends a few batches without a sync to a random history; gives the images and the models after each batch.
fn unsynced(path: &Path, chance: &mut Chance) -> (Image, Image, Vec<Model>) {
    let steps = chance.below(30);
    let (mut wal, mut model) = history(path, steps, chance);
    if chance.below(2) == 0 {
        wal.prepare_spare().unwrap();
    }
    let old = image(path);
    let mut models = vec![model.clone()];
    for _ in 0..=chance.below(3) {
        let batch = model.batch(chance);
        wal.append(&batch).unwrap();
        model.apply(&batch);
        models.push(model.clone());
    }
    (old, image(path), models)
}

#[test]
fn any_mixture_of_unsynced_sectors_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let (life, cut) = (dir.path().join("life"), dir.path().join("cut"));
    let mut outcomes = [0_usize; 8];
    for seed in 0..40 {
        let mut chance = Chance(seed);
        restore(&life, &Image::new());
        let (old, new, models) = unsynced(&life, &mut chance);
        let places = differences(&old, &new);
        let few = places.len() <= 4;
        for round in 0..16_u64 {
            // Few sectors: every mixture. Many: random ones, of every density.
            let density = chance.below(9);
            let mixed = torn(&old, &new, &places, |place| {
                if few {
                    round >> place & 1 == 1
                } else {
                    chance.below(8) < density
                }
            });
            outcomes[survives(&cut, &mixed, &models, &mut chance)] += 1;
        }
    }
    assert!(outcomes[0] > 50 && outcomes[1] > 20, "{outcomes:?}");
}

#[test]
fn a_crash_while_the_end_is_put_in_order_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (life, cut) = (dir.path().join("life"), dir.path().join("cut"));
    for seed in 100..130 {
        let mut chance = Chance(seed);
        restore(&life, &Image::new());
        let (old, new, models) = unsynced(&life, &mut chance);
        let places = differences(&old, &new);
        let before = torn(&old, &new, &places, |_| chance.below(2) == 0);
        restore(&cut, &before);
        let (_, first) = open(&cut);
        let after = image(&cut);
        // Files that opening removed were already nothing: keep them, as if the removal was lost.
        let mut kept = after.clone();
        for (name, bytes) in &before {
            kept.entry(name.clone()).or_insert_with(|| bytes.clone());
        }
        let places = differences(&before, &kept);
        // The anchor is written only after everything else is synced.
        let (anchor, rest): (Vec<_>, Vec<_>) =
            places.into_iter().partition(|(name, _)| name == "anchor");
        for _ in 0..6 {
            let mixed = torn(&before, &kept, &rest, |_| chance.below(2) == 0);
            let mixed = torn(&before, &mixed, &anchor, |_| false);
            restore(&cut, &mixed);
            let (_, again) = open(&cut);
            assert_eq!(first.groups, again.groups, "seed {seed}");
            assert!(models.iter().any(|model| model.compare(&again).is_ok()));
        }
        let mixed = torn(&before, &kept, &anchor, |_| chance.below(2) == 0);
        restore(&cut, &mixed);
        assert_eq!(open(&cut).1.groups, first.groups);
    }
}

#[test]
fn a_trim_can_stop_at_every_step() {
    let dir = tempfile::tempdir().unwrap();
    let (life, cut) = (dir.path().join("life"), dir.path().join("cut"));
    for seed in 200..240 {
        let mut chance = Chance(seed);
        restore(&life, &Image::new());
        let (mut wal, mut model) = history(&life, 25, &mut chance);
        let old = image(&life);
        for _ in 0..3 {
            model.release(&mut wal, &mut chance);
        }
        wal.trim().unwrap();
        let new = image(&life);
        // Step 1: records written again, the anchor still old, every old file there.
        let mut early = old.clone();
        for (name, bytes) in new.iter().filter(|(name, _)| *name != "anchor") {
            let recycled = !old.contains_key(name) && old.values().any(|file| file == bytes);
            if !recycled {
                early.insert(name.clone(), bytes.clone());
            }
        }
        survives(&cut, &early, &[model.clone()], &mut chance);
        // Step 2: the anchor is new, no file is gone yet.
        early.insert("anchor".to_owned(), new["anchor"].clone());
        survives(&cut, &early, &[model.clone()], &mut chance);
        // Step 3: some files are gone.
        for name in old.keys().filter(|name| !new.contains_key(*name)) {
            early.remove(name);
            survives(&cut, &early, &[model.clone()], &mut chance);
        }
        survives(&cut, &new, &[model], &mut chance);
    }
}
