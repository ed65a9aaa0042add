//! Values at their bounds, what is refused, and the name of a run that has none.

use super::super::timestamp;
use super::{parsed, typed};
use onesheet::network::resnet50;

#[test]
fn values_are_taken_to_their_bounds_and_refused_behind_them() {
    for words in [
        "--seed 0",
        "--seed 9223372036854775807",
        "--epochs 1",
        "--epochs 4294967295",
        "--max-steps 18446744073709551615",
        "--profile=1",
        "--profile=1000",
        "--time-limit 1e-9",
        "--patience 4294967295",
        "--weight-decay 0",
        "--weight-decay 1",
        "--clip-norm 1e-300",
        "--ema 0.99999",
        "--accumulate 10000",
        "--lr 5e-324",
        "--lr 1.7976931348623157e308",
        "--warmup-epochs 0",
        "--warmup-epochs 999999.999",
        "--image-size 32",
        "--image-size 1024",
        "--momentum 0",
        "--momentum 0.9999999999999999",
        "--save-every 0",
        "--save-every 999999.999",
        "--trainable last:0",
        "--trainable last:176",
    ] {
        typed(words);
    }
    for (words, why) in [
        ("--seed -1", "-1"),
        ("--seed 9223372036854775808", "9223372036854775808"),
        ("--epochs 0", "1.."),
        ("--epochs 4294967296", "1.."),
        ("--max-steps -1", "-1"),
        ("--max-steps 1.5", "a limit is a number of steps, or `none`"),
        ("--max-steps None", "a limit is a number of steps, or `none`"),
        ("--profile=0", "1..=1000"),
        ("--profile=1001", "1..=1000"),
        ("--patience 0", "patience is a number of epochs from 1 on, or `none`"),
        ("--patience 1.5", "patience is a number of epochs from 1 on, or `none`"),
        ("--time-limit 0", "a limit is a number of minutes above 0, or `none`"),
        ("--time-limit inf", "a limit is a number of minutes above 0, or `none`"),
        ("--time-limit nan", "a limit is a number of minutes above 0, or `none`"),
        ("--weight-decay 1.5", "a weight decay is a number from 0 to 1"),
        ("--weight-decay nan", "a weight decay is a number from 0 to 1"),
        ("--clip-norm 0", "a norm is a number above 0"),
        ("--clip-norm inf", "a norm is a number above 0"),
        ("--ema 1", "a moving average's decay is a number from 0 to below 1"),
        ("--accumulate 0", "1..=10000"),
        ("--crop 1", "a share is a number from 0 to below 1"),
        ("--rotate 181", "an angle is a number of degrees from 0 to 180"),
        ("--colour=-0.1", "a share is a number from 0 to below 1"),
        ("--crop nan", "a share is a number from 0 to below 1"),
        ("--init kaiming", "[possible values: glorot, he]"),
        ("--schedule linear", "[possible values: constant, cosine]"),
        ("--lr 0", "a learning rate is a number above 0"),
        ("--lr=-0.001", "a learning rate is a number above 0"),
        ("--lr inf", "a learning rate is a number above 0"),
        ("--lr nan", "a learning rate is a number above 0"),
        ("--lr fast", "a learning rate is a number above 0"),
        ("--warmup-epochs=-0.5", "a warm-up takes a number of epochs from 0 on"),
        ("--warmup-epochs 1e6", "a warm-up takes a number of epochs from 0 on"),
        ("--warmup-epochs nan", "a warm-up takes a number of epochs from 0 on"),
        ("--image-size 31", "32..=1024"),
        ("--image-size 1025", "32..=1024"),
        ("--momentum 1", "a momentum is a number from 0 to below 1"),
        ("--momentum=-0.1", "a momentum is a number from 0 to below 1"),
        ("--momentum nan", "a momentum is a number from 0 to below 1"),
        ("--save-every=-1", "an interval is a number of minutes from 0 on"),
        ("--save-every 1e6", "an interval is a number of minutes from 0 on"),
        ("--save-every nan", "an interval is a number of minutes from 0 on"),
        ("--trainable last:x", "neither `all` nor `last:N`"),
        ("--pooling min", "neither `avg` nor `max`"),
        ("--device gpu", "[possible values: auto, cpu, cuda, sim]"),
        ("--precision f16", "[possible values: auto, f32, tf32, bf16]"),
        (
            "--experiment resnet",
            "[possible values: random, imagenet, transfer, resnet-r, resnet-img, resnet-tl, onesheet]",
        ),
        ("--network resnet", "[possible values: resnet50, resnet50-v1.5, mobilenet, vgg16, xception, shallow]"),
        ("--class-weights all", "[possible values: balanced, none]"),
        ("--pixels bgr", "[possible values: raw, imagenet, unit, symmetric]"),
        ("--on-bad-numbers go", "[possible values: stop, skip, rollback]"),
        ("--io write", "[possible values: map, read]"),
        ("--zero-init-residual 1", "[possible values: true, false]"),
        ("--check-numerics true", "unexpected argument"),
        ("--recompute true", "unexpected argument"),
        ("--batch -3", "-3"),
        ("poster.jpg", "unexpected argument"),
    ] {
        let error = parsed(words).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(why), "{words}: {error}");
    }
}

/// Which layers there are says the network, whatever the order in which the flags are typed.
#[test]
fn more_layers_than_the_network_has_are_refused() {
    for words in
        ["--trainable last:177", "--trainable last:177 --network resnet50-v1.5 --data d", "--trainable last:99999"]
    {
        let error = typed(words).config(None).unwrap_err().0;
        assert!(
            error.starts_with("trainable is last:") && error.contains("N up to 176, the layers of ResNet-50"),
            "{error}"
        );
    }
    assert!(typed("--trainable last:176").config(None).is_ok());
}

#[test]
fn a_run_goes_on_as_the_network_it_began_as() {
    let refusal = |words: &str| typed(words).refuse_another_network(resnet50::NETWORK).map_err(|error| error.0);
    assert_eq!(refusal("--resume r"), Ok(()));
    assert_eq!(refusal("--resume r --network resnet50"), Ok(()));
    let error = refusal("--resume r --network resnet50-v1.5").unwrap_err();
    assert!(error.starts_with("the run trains ResNet-50, and cannot go on as ResNet-50 v1.5; "), "{error}");
}

#[test]
fn an_experiment_says_what_it_lacks() {
    let refusal = |words: &str| typed(words).config(None).map(|_| ()).map_err(|error| error.0);
    for experiment in ["imagenet", "transfer", "resnet-img", "resnet-tl"] {
        for (words, data) in [("", "posters.safetensors"), ("--data d", "d")] {
            let error = refusal(&format!("--experiment {experiment} {words}")).unwrap_err();
            let command = format!("onesheet train --data {data} --experiment {experiment} --weights FILE, where");
            assert!(error.starts_with(&format!("{experiment} starts from ImageNet weights: {command}")), "{error}");
        }
        let error = refusal(&format!("--experiment {experiment} --network shallow")).unwrap_err();
        assert!(error.contains("nobody has published any of ShallowNet") && error.contains("of your own"), "{error}");
        let error = refusal(&format!("--experiment {experiment} --weights w")).unwrap_err();
        assert!(error.starts_with(&format!("{experiment} needs posters: ")), "{error}");
    }
    let error = refusal("--experiment resnet-r").unwrap_err();
    assert!(error.starts_with("resnet-r needs posters: onesheet train --data posters.safetensors"), "{error}");
    for words in [
        "",
        "--data d",
        "--weights w",
        "--experiment resnet-r --data d",
        "--experiment resnet-tl --data d --weights w",
        // Of fewer layers than transfer trains.
        "--experiment transfer --network vgg16 --data d --weights w",
        // Its layers are printed without either.
        "--experiment resnet-tl --summary",
        "--experiment resnet-r --summary",
    ] {
        assert_eq!(refusal(words), Ok(()), "{words}");
    }
}

#[test]
fn a_run_without_a_name_is_called_by_its_date_and_what_it_tries() {
    for (words, what) in [
        ("", "synthetic"),
        ("--data d", "resnet50"),
        ("--data d --network resnet50-v1.5", "resnet50-v1.5"),
        ("--experiment resnet-r", "resnet-r"),
        ("--experiment random", "resnet50-random"),
        ("--experiment transfer --network vgg16 --data d", "vgg16-transfer"),
        ("--experiment resnet-tl --data d", "resnet-tl"),
    ] {
        let name = typed(words).default_run_name();
        let (date, end) = name.split_at("2026-11-22-091530".len());
        assert_eq!(end, format!("-{what}"), "{words}");
        assert!(date.starts_with("20") && date.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-'), "{name}");
    }
}

#[test]
fn timestamps_are_dates() {
    // From `date --utc --date=@SECONDS`.
    let dates = [
        (0, "1970-01-01-000000"),
        (951_782_399, "2000-02-28-235959"),
        (951_782_400, "2000-02-29-000000"),
        (1_709_164_800, "2024-02-29-000000"),
        (1_795_338_930, "2026-11-22-091530"),
        (4_107_542_400, "2100-03-01-000000"),
    ];
    for (seconds, date) in dates {
        assert_eq!(timestamp(seconds), date);
    }
}
