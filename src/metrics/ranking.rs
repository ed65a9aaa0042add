//! Measures that need no threshold: they judge only the order in which a genre's posters are ranked.
//!
//! Both walk the posters once from the most to the least probable, a *group of ties* at a time: equal probabilities are one
//! point of the curve, so the order in which posters happen to be stored cannot change a score.

/// A genre's posters from the most to the least probable, sorted once and judged as often as it takes.
#[derive(Clone, Debug)]
pub(super) struct Ranking {
    ranked: Vec<Ranked>,
}

/// A poster in its place.
#[derive(Clone, Copy, Debug)]
struct Ranked {
    poster: u32,
    is_positive: bool,
    /// Whether the next one is less probable.
    ends_group: bool,
}

impl Ranking {
    /// Of posters as (probability, whether the genre is true).
    pub(super) fn new(posters: impl IntoIterator<Item = (f32, bool)>) -> Self {
        let mut posters: Vec<(f32, bool, u32)> =
            posters.into_iter().zip(0..).map(|((p, is_positive), poster)| (p, is_positive, poster)).collect();
        posters.sort_by(|a, b| b.0.total_cmp(&a.0));
        let ends_group = |at: usize| posters.get(at + 1).is_none_or(|next| next.0 != posters[at].0);
        let place = |(at, &(_, is_positive, poster))| Ranked { poster, is_positive, ends_group: ends_group(at) };
        Ranking { ranked: posters.iter().enumerate().map(place).collect() }
    }

    /// Calls `group` with the positives and negatives of each group of ties, where poster i counts `times[i]` times.
    fn walk(&self, times: &[u32], mut group: impl FnMut(u64, u64)) {
        let mut counts = [0, 0];
        for &Ranked { poster, is_positive, ends_group } in &self.ranked {
            counts[usize::from(is_positive)] += u64::from(times[poster as usize]);
            if ends_group {
                let [down, up] = std::mem::take(&mut counts);
                group(up, down);
            }
        }
    }

    /// [`average_precision`] where poster i counts `times[i]` times.
    pub(super) fn average_precision(&self, times: &[u32]) -> Option<f64> {
        let (mut tp, mut fp, mut sum) = (0, 0, 0.0);
        self.walk(times, |up, down| {
            tp += up;
            fp += down;
            // A resample may have nobody up to here.
            if up > 0 {
                sum += up as f64 * tp as f64 / (tp + fp) as f64;
            }
        });
        (tp > 0).then(|| sum / tp as f64)
    }

    /// [`roc_auc`] where poster i counts `times[i]` times.
    pub(super) fn roc_auc(&self, times: &[u32]) -> Option<f64> {
        let (mut above, mut negatives, mut won) = (0, 0, 0.0);
        self.walk(times, |up, down| {
            won += down as f64 * (above as f64 + up as f64 / 2.0);
            above += up;
            negatives += down;
        });
        let pairs = above * negatives;
        (pairs > 0).then(|| won / pairs as f64)
    }
}

/// Average precision: `Σ (R_k − R_{k−1})·P_k` over the distinct probabilities, the area under the precision–recall steps
/// without interpolation, as scikit-learn's `average_precision_score`.
///
/// `None` for a genre with no positive, for then there is nothing to find (scikit-learn gives 0 and warns). `posters` are
/// (probability, whether the genre is true).
pub fn average_precision(posters: Vec<(f32, bool)>) -> Option<f64> {
    let times = vec![1; posters.len()];
    Ranking::new(posters).average_precision(&times)
}

/// The precision–recall curve: (recall, precision) at each distinct probability as the threshold, the highest first. Empty for a genre
/// with no positive.
pub fn precision_recall(posters: impl IntoIterator<Item = (f32, bool)>) -> Vec<(f64, f64)> {
    let ranking = Ranking::new(posters);
    let positives = ranking.ranked.iter().filter(|ranked| ranked.is_positive).count() as f64;
    let (mut tp, mut fp, mut points) = (0, 0, Vec::new());
    ranking.walk(&vec![1; ranking.ranked.len()], |up, down| {
        tp += up;
        fp += down;
        points.push((tp as f64 / positives, tp as f64 / (tp + fp) as f64));
    });
    if positives > 0.0 { points } else { Vec::new() }
}

/// Area under the receiver operating characteristic: the chance that a positive poster ranks above a negative one, where
/// a tie counts half.
///
/// `None` when either kind is absent, for then there is no pair to rank (scikit-learn gives NaN and warns).
pub fn roc_auc(posters: Vec<(f32, bool)>) -> Option<f64> {
    let times = vec![1; posters.len()];
    Ranking::new(posters).roc_auc(&times)
}
