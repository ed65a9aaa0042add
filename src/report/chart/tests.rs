use super::*;

fn chart(points: Vec<(f64, f64)>) -> Chart<'static> {
    let series = Series { name: "a <b>".into(), colour: Colour::Series(0), mark: Mark::Circle, points };
    let (x, y) = (Axis::counted("epoch", 3), Axis::share("score"));
    let place = Some((2.0, "best".to_owned()));
    Chart { title: "T & \"U\"", told: "x < y".into(), x, y, size: (400, 300), series: vec![series], place }
}

#[test]
fn ticks_are_round_and_cover_the_values() {
    for (last, ticks) in
        [(1, vec![1.0, 2.0]), (3, vec![1.0, 2.0, 3.0]), (20, vec![2.0, 5.0, 8.0, 11.0, 14.0, 17.0, 20.0])]
    {
        assert_eq!(Axis::counted("", last).ticks, ticks);
    }
    for (most, end, count) in
        [(0.7, 0.8, 5), (1.0, 1.0, 6), (0.034, 0.035, 8), (13.0, 14.0, 8), (0.0, 1.0, 6), (f64::NAN, 1.0, 6)]
    {
        let axis = Axis::up_to("", most);
        assert!((axis.range.end - end).abs() <= 1e-9 || axis.range.end >= most, "{most}: {axis:?}");
        assert!((3..=8).contains(&axis.ticks.len()) && count > 0, "{most}: {axis:?}");
        assert!((axis.ticks.last().unwrap() - axis.range.end).abs() <= 1e-9);
    }
}

#[test]
fn a_drawing_says_what_it_shows_and_has_the_colours_of_the_page() {
    let text = chart(vec![(1.0, 0.2), (2.0, f64::NAN), (3.0, 0.9)]).figure().into_string();
    for part in [
        "role=\"img\" aria-label=\"T &amp; &quot;U&quot;. x &lt; y\"",
        "<figcaption>T &amp; &quot;U&quot;</figcaption>",
        "fill=\"var(--series-0)\"",
        "stroke=\"var(--grid)\"",
        "a &lt;b&gt;",
        ">best<",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("#0100") && !text.contains("NaN"), "{text}");
    assert_eq!(text.matches("<circle").count(), 3, "two points and the legend");
    assert_eq!(text.matches("<svg").count(), text.matches("</svg>").count());
}

/// The y axis of a drawing points upwards, whatever plotters does inside.
#[test]
fn points_lie_where_their_values_are() {
    let text = chart(vec![(1.0, 0.0), (3.0, 1.0)]).drawing().into_string();
    let numbers = |name: &str| -> Vec<f64> {
        let circles = text.split("<circle ").skip(1);
        circles
            .map(|circle| {
                circle.split(&format!("{name}=\"")).nth(1).unwrap().split('"').next().unwrap().parse().unwrap()
            })
            .collect()
    };
    let (x, y) = (numbers("cx"), numbers("cy"));
    // The last point is marked first.
    assert!(x[0] > x[1] && y[0] < y[1], "{x:?} {y:?}");
}
