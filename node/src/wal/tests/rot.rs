//! Damage: flipped bits, lost writes, lost files. Never silent, and never mistaken for a torn tail.

use super::*;

fn damage(path: &Path) -> Result<Recovered, Damage> {
    match Wal::open(path, options()) {
        Ok((_, recovered)) => Ok(recovered),
        Err(Error::Damaged(wreck)) => Err(wreck.damage),
        Err(other) => panic!("{other}"),
    }
}

/// A log of a few synced segments, and the sectors in use: (file, sector).
fn written(path: &Path) -> (Image, Vec<(String, usize)>) {
    let (mut wal, _) = history(path, 20, &mut Chance(5));
    wal.append_and_sync(&[promise(1, 9, 9)]).unwrap();
    drop(wal);
    let image = image(path);
    let mut live = Vec::new();
    for (name, bytes) in image.iter().filter(|(name, _)| name.ends_with(".wal")) {
        let number = segment::number(name).unwrap();
        for (at, sector) in bytes.chunks(SECTOR).enumerate() {
            if let sector::Sector::Valid(header, _) = sector::classify(sector)
                && header.segment == number
            {
                live.push((name.clone(), at));
            }
        }
    }
    (image, live)
}

#[test]
fn every_flipped_byte_of_synced_data_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let (life, hurt) = (dir.path().join("life"), dir.path().join("hurt"));
    let (good, live) = written(&life);
    assert!(live.len() > 15);
    let mut chance = Chance(1);
    restore(&hurt, &good);
    for (name, sector) in &live {
        for _ in 0..12 {
            let mut bytes = good[name].clone();
            let at = sector * SECTOR + chance.below(SECTOR as u64) as usize;
            bytes[at] ^= 1 << chance.below(8);
            fs::write(hurt.join(name), &bytes).unwrap();
            let found = damage(&hurt).expect_err("a flipped bit went unseen");
            assert_eq!(segment::name(found.segment), *name);
        }
        fs::write(hurt.join(name), &good[name]).unwrap();
    }
    assert_eq!(image(&hurt), good, "a damaged log must stay as it is");
}

#[test]
fn flips_anywhere_are_damage_or_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (life, hurt) = (dir.path().join("life"), dir.path().join("hurt"));
    let (good, _) = written(&life);
    let (_, expected) = open(&life);
    let mut chance = Chance(2);
    let (mut seen, mut harmless) = (0, 0);
    for _ in 0..400 {
        let names: Vec<&String> = good.keys().collect();
        let name = names[chance.below(names.len() as u64) as usize];
        let mut image = good.clone();
        let bytes = image.get_mut(name).unwrap();
        let at = chance.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << chance.below(8);
        restore(&hurt, &image);
        match damage(&hurt) {
            Err(_) => seen += 1,
            Ok(recovered) => {
                assert_eq!(recovered.groups, expected.groups, "{name} {at}");
                harmless += 1;
                // What was harmless stays harmless: the rot is out of the way of later batches.
                let (mut wal, _) = open(&hurt);
                wal.append_and_sync(&[promise(0, 10, 10)]).unwrap();
                drop(wal);
                damage(&hurt).expect("rot came back");
            }
        }
    }
    assert!(seen > 100 && harmless > 20, "{seen} {harmless}");
}

#[test]
fn a_lost_write_in_front_of_synced_data_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let (life, hurt) = (dir.path().join("life"), dir.path().join("hurt"));
    let (good, live) = written(&life);
    // The last batch has one sector, and nothing testifies to it yet: losing it is the one loss that cannot be seen.
    for (name, sector) in &live[..live.len() - 1] {
        let mut image = good.clone();
        let range = sector * SECTOR..(sector + 1) * SECTOR;
        image.get_mut(name).unwrap()[range].fill(0);
        restore(&hurt, &image);
        damage(&hurt).expect_err("a lost write went unseen");
    }
}

#[test]
fn a_lost_segment_is_damage_wherever_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (life, hurt) = (dir.path().join("life"), dir.path().join("hurt"));
    let (good, live) = written(&life);
    let segments: std::collections::BTreeSet<&String> = live.iter().map(|(name, _)| name).collect();
    assert!(segments.len() > 2);
    for name in segments {
        let mut image = good.clone();
        image.remove(name);
        restore(&hurt, &image);
        damage(&hurt).expect_err("a lost segment went unseen");
        image.insert(name.clone(), vec![0; SEGMENT as usize]);
        restore(&hurt, &image);
        damage(&hurt).expect_err("an emptied segment went unseen");
        image.insert(name.clone(), good[name][..SECTOR].to_vec());
        restore(&hurt, &image);
        if good[name][SECTOR..2 * SECTOR].iter().any(|byte| *byte != 0) {
            damage(&hurt).expect_err("a shortened segment went unseen");
        }
    }
}

#[test]
fn a_lost_anchor_is_damage_and_half_an_anchor_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (life, hurt) = (dir.path().join("life"), dir.path().join("hurt"));
    let (good, _) = written(&life);
    let mut image = good.clone();
    image.remove("anchor");
    restore(&hurt, &image);
    let Err(Error::Damaged(wreck)) = Wal::open(&hurt, options()) else {
        panic!("a lost anchor went unseen")
    };
    assert_eq!(wreck.damage.segment, 0);
    assert!(!wreck.groups_without_promise().is_empty());
    assert!(wreck.genesis().is_some());
    image.insert("anchor".to_owned(), vec![0; 2 * SECTOR]);
    restore(&hurt, &image);
    damage(&hurt).expect_err("an emptied anchor went unseen");
    for slot in 0..2 {
        let mut bytes = good["anchor"].clone();
        bytes[slot * SECTOR + 20] ^= 1;
        image.insert("anchor".to_owned(), bytes);
        restore(&hurt, &image);
        // The older claim may ask for a segment that was trimmed since; it never lets a loss pass.
        if let Ok(recovered) = damage(&hurt) {
            assert_eq!(recovered.verdict, Verdict::Clean);
        }
    }
}

#[test]
fn random_files_never_panic() {
    let dir = tempfile::tempdir().unwrap();
    let mut chance = Chance(3);
    for _ in 0..30 {
        let noise: Vec<u8> = (0..SEGMENT).map(|_| chance.next() as u8).collect();
        let image = Image::from([
            (segment::name(1 + chance.below(3)), noise.clone()),
            ("anchor".to_owned(), noise[..1024].to_vec()),
        ]);
        restore(dir.path(), &image);
        damage(dir.path()).expect_err("noise is not a log");
        inspect(dir.path()).unwrap();
    }
}
