use super::*;
use onesheet::device::DeviceError;
use onesheet::training::checkpoint::CheckpointError;
use serde_json::Value;
use std::fs;
use tempfile::TempDir;

#[test]
fn lines_off_a_terminal_thin_out() {
    let lines = |hours: u64| {
        let (mut now, mut lines) = (Duration::ZERO, 0);
        while now < Duration::from_secs(3600 * hours) {
            now += plain_pause(now);
            lines += 1;
        }
        lines
    };
    let pause = |seconds| plain_pause(Duration::from_secs(seconds)).as_secs();
    assert_eq!([60, 300, 400, 18_000, 86_400].map(pause), [15, 15, 20, 900, 900]);
    assert!((50..100).contains(&lines(1)), "{} in an hour", lines(1));
    assert!((100..200).contains(&lines(24)), "{} in a day", lines(24));

    let is_due = |silent, lasted| is_due(Duration::from_millis(silent), Duration::from_secs(lasted));
    assert_eq!([14_999, 15_000, 15_001].map(|silent| is_due(silent, 60)), [false, true, true]);
    assert_eq!([19_999, 20_000].map(|silent| is_due(silent, 400)), [false, true]);
}

/// A run of 4 epochs of 50 steps of 8 posters, on a console that says nothing.
fn progress(json: bool, max_steps: Option<u64>) -> Progress {
    let config = RunConfig { epochs: 4, batch: 8, max_steps, ..RunConfig::default() };
    // With JSON no head is printed among what the tests say.
    Progress { json, ..Progress::new(Console { quiet: true }, true, "a device".into(), &config, 20, 50) }
}

fn step(step: u64, loss: f64, images_per_second: f64) -> StepRow {
    StepRow { step, loss, learning_rate: 1e-3, images_per_second, gradient_norm: 1.0 }
}

const EPOCH: EpochRow = EpochRow {
    epoch: 3,
    step: 150,
    train_loss: 0.25861,
    validation_loss: 0.19834,
    binary_accuracy: 0.79143,
    weighted_f1: 0.74992,
    coin_f1: 0.59921,
    always_yes_f1: 0.44697,
    mean_average_precision: 0.84152,
    learning_rate: 0.5e-3,
    seconds: 75.4,
};

#[test]
fn the_bar_follows_the_steps() {
    let mut progress = progress(false, None);
    assert_eq!((progress.total, progress.bar.position()), (200, 20));
    assert_eq!(progress.step(&step(51, 0.123_45, 10.0), 1), None, "a moment after the last line");
    // 149 steps of 8 posters, ten a second.
    assert_eq!(progress.bar.message(), "loss 0.1235  10.0 images/s  1:59 left");
    assert_eq!((progress.bar.prefix(), progress.bar.position()), ("2/4".to_owned(), 51));
    // A tenth of the new rate: 0.9 × 10 + 0.1 × 30.
    progress.step(&step(52, 0.1, 30.0), 1);
    assert_eq!(progress.bar.message(), "loss 0.1000  12.0 images/s  1:39 left");
    progress.show(Event::Averages { done: 2, posters: 6 });
    assert_eq!(progress.bar.message(), "batch norm's averages, 2 of 6 posters");
    progress.show(Event::Validation { done: 3, posters: 7 });
    assert_eq!(progress.bar.message(), "validation, 3 of 7 posters");
}

#[test]
fn a_step_limit_is_the_end_of_the_bar() {
    assert_eq!(progress(false, Some(70)).total, 70);
    assert_eq!(progress(false, Some(700)).total, 200);
    let mut beyond = progress(false, Some(70));
    beyond.step(&step(71, 0.1, 10.0), 1);
    assert_eq!(beyond.bar.message(), "loss 0.1000  10.0 images/s  0:00 left");
}

#[test]
fn off_a_terminal_a_line_is_due_when_the_last_one_is_long_past() {
    let mut progress = progress(false, None);
    let ago = |seconds| Instant::now().checked_sub(Duration::from_secs(seconds)).expect("the clock began earlier");
    progress.spoke = ago(16);
    let expected = "epoch 2 of 4, step 60 of 200: loss 0.5000, 20.0 images/s, 0:56 left";
    assert_eq!(progress.step(&step(60, 0.5, 20.0), 1).as_deref(), Some(expected));
    assert_eq!(progress.step(&step(61, 0.5, 20.0), 1), None);
    progress.spoke = ago(14);
    assert_eq!(progress.step(&step(62, 0.5, 20.0), 1), None);
}

#[test]
fn the_first_step_is_told_of_once_where_that_was_asked() {
    let mut progress = progress(false, None);
    assert_eq!(progress.first_step(), None);
    progress.tell_first_step();
    let told = progress.first_step().unwrap();
    let seconds =
        told.strip_prefix("first step done ").and_then(|told| told.strip_suffix(" s after the start of the program"));
    assert!(seconds.is_some_and(|seconds| seconds.parse::<f64>().is_ok()), "{told}");
    assert_eq!(progress.first_step(), None);
}

#[test]
fn the_rows_of_the_table_stand_below_its_head() {
    let mut progress = progress(false, None);
    let expected = [
        "epoch  train loss  val. loss  accuracy  weighted F1  baseline     mAP    time",
        "  3/4      0.2586     0.1983   79.14 %       0.7499    0.5992  0.8415    1:15 ★",
        "  3/4      0.2586     0.1983   79.14 %       0.7499    0.6470  0.8415    1:15",
    ];
    let worse = EpochRow { always_yes_f1: 0.64697, ..EPOCH };
    assert_eq!([HEAD, &progress.epoch(&EPOCH, true), &progress.epoch(&worse, false)], expected);
    assert_eq!(progress.best, Some(EPOCH), "the last one was no better");
}

#[test]
fn with_json_an_epoch_is_its_row_of_the_log() {
    let mut progress = progress(true, None);
    for best in [true, false] {
        let found: Value = serde_json::from_str(&progress.epoch(&EPOCH, best)).unwrap();
        let expected = json!({
            "schema": 1, "kind": "epoch", "best": best, "device": "a device",
            "row": {
                "epoch": 3, "step": 150, "train_loss": 0.25861, "validation_loss": 0.19834, "binary_accuracy": 0.79143,
                "weighted_f1": 0.74992, "coin_f1": 0.59921, "always_yes_f1": 0.44697, "mean_average_precision": 0.84152,
                "learning_rate": 0.5e-3, "seconds": 75.4,
            },
        });
        assert_eq!(found, expected);
    }
    assert_eq!(progress.best, Some(EPOCH));
}

#[test]
fn the_verdict_is_beats_only_where_both_baselines_are_beaten() {
    let verdict = |weighted_f1| verdict(&EpochRow { weighted_f1, ..EPOCH });
    let rest = "both the coin (0.5992) and always-yes (0.4470); mAP 0.8415";
    assert_eq!(verdict(0.74992), format!("best epoch 3: weighted F1 0.7499 beats {rest}"));
    assert_eq!(verdict(0.5), format!("best epoch 3: weighted F1 0.5000 does not beat {rest}"));
    assert_eq!(verdict(EPOCH.coin_f1), format!("best epoch 3: weighted F1 0.5992 does not beat {rest}"));
}

#[test]
fn a_run_that_ended_says_where_to_look_and_what_to_type() {
    let folder = TempDir::new().unwrap();
    let run = folder.path().join("a run");
    let (program, shown, typed) = (program(), run.display(), quoted(&run));
    let progress = Progress { best: Some(EPOCH), ..progress(false, None) };
    let trained = format!("\ntrained to epoch 4, 200 steps in all, 0:00 this time\n{}\n", verdict(&EPOCH));
    let look = format!("\nlook at  {shown}/report.html in a browser, log.csv and steps.csv");
    assert_eq!(progress.closing(Ending::Finished, 200, &run), format!("{trained}{look}"));
    let progress = Progress { tuned_f1: Some(0.81237), ..progress };
    let tuned = "its thresholds tuned on validation give a weighted F1 of 0.8124 there; they are in the model (--thresholds tuned)";
    let trained = format!("{trained}{tuned}\n");
    assert_eq!(progress.closing(Ending::Finished, 200, &run), format!("{trained}{look}"));

    fs::create_dir_all(run.join("checkpoints")).unwrap();
    fs::write(best_checkpoint(&run), "a model").unwrap();
    let model = quoted(&best_checkpoint(&run));
    let next =
        format!("\ntype     {program} evaluate --run {typed}\n         {program} infer --model {model} poster.jpg");
    assert_eq!(progress.closing(Ending::Finished, 200, &run), format!("{trained}{look}{next}"));
    let stale = progress.closing(Ending::NoBetter, 150, &run);
    assert!(stale.starts_with("\nno better epoch for as many as --patience says, 150 steps in all, 0:00"), "{stale}");
    assert!(stale.ends_with(&format!("{look}{next}")), "{stale}");
    let stopped = [(Ending::StepLimit, "stopped as asked"), (Ending::TimeLimit, "stopped as asked")];
    for (ending, why) in stopped.into_iter().chain([(Ending::Interrupted, "interrupted")]) {
        let expected =
            format!("\n{why} after step 77, everything saved; go on with\n  {program} train --resume {typed}");
        assert_eq!(progress.closing(ending, 77, &run), expected);
    }
}

#[test]
fn a_run_that_failed_says_what_is_saved_and_how_it_goes_on() {
    let config = RunConfig { learning_rate: 0.5, ..RunConfig::default() };
    let (run, program) = (Path::new("runs/a b"), program());
    let told = |error: TrainingError, saved| failed(&error, run, saved, &config);
    let diverged = TrainingError::Diverged { what: "the loss".into(), value: f64::NAN, place: None };
    assert_eq!(
        told(diverged, Some(9)),
        format!(
            "everything up to step 9 is saved; the run goes on, at a lower rate, with\n  {program} train --resume 'runs/a b' --lr 0.05"
        )
    );
    let not_finite = CheckpointError::NotFinite { path: "c".into(), tensor: "t".into() };
    assert_eq!(
        told(not_finite.into(), None),
        format!(
            "nothing was saved yet; the run begins anew, at a lower rate, with\n  {program} train --resume 'runs/a b' --lr 0.05"
        )
    );
    let device = DeviceError::Unavailable("gone".into());
    assert_eq!(
        told(device.into(), Some(9)),
        format!(
            "everything up to step 9 is saved; the run goes on, on another --device if need be, with\n  {program} train --resume 'runs/a b'"
        )
    );
    let damaged = CheckpointError::Damaged { path: "c".into(), part: "p".into() };
    assert_eq!(
        told(damaged.into(), None),
        format!(
            "nothing was saved yet; the run begins anew, once that is mended, with\n  {program} train --resume 'runs/a b'"
        )
    );
}
