//! What is asked about posters, and the answering of it: batch by batch, on the thread that computes.

use crate::answering::answers::{Answered, Listed, ranked};
use crate::answering::asking::{Asking, BATCH};
use onesheet::device::{Device, DeviceError};
use onesheet::model::HeatMap;
use std::iter;
use tokio::sync::{mpsc, oneshot};

/// A question about one poster.
pub struct Question {
    /// As the network wants it: `[size, size, 3]`.
    pub square: Vec<u8>,
    /// Which genres heat maps are wanted of, if they are.
    pub drawn: Option<Listed>,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Answer>,
}

/// What the model says of a poster.
pub struct Answer {
    /// Of each genre, in the model's order.
    pub probabilities: Vec<f32>,
    /// Where it sees genres, by their rank.
    pub maps: Vec<(usize, HeatMap)>,
}

/// Answers until nobody can ask any more.
///
/// # Errors
/// The device's. Who waits then learns that no answer comes.
pub fn answer<D: Device>(
    asking: &mut Asking<D>,
    genres: &[String],
    thresholds: &[f64],
    mut questions: mpsc::Receiver<Question>,
) -> Result<(), DeviceError> {
    while let Some(batch) = next_batch(&mut questions) {
        if !batch.is_empty() {
            answer_batch(asking, genres, thresholds, batch)?;
        }
    }
    Ok(())
}

/// Waits for a question and takes all that wait with it, up to a batch, but for those that nobody waits to have answered any more.
fn next_batch(questions: &mut mpsc::Receiver<Question>) -> Option<Vec<Question>> {
    let first = questions.blocking_recv()?;
    let batch = iter::once(first).chain(iter::from_fn(|| questions.try_recv().ok())).take(BATCH);
    Some(batch.filter(|question| !question.answer.is_closed()).collect())
}

fn answer_batch<D: Device>(
    asking: &mut Asking<D>,
    genres: &[String],
    thresholds: &[f64],
    batch: Vec<Question>,
) -> Result<(), DeviceError> {
    let pixels: Vec<u8> = batch.iter().flat_map(|question| &question.square).copied().collect();
    let rows = asking.probabilities(&pixels)?;
    let mut drawn = Vec::new();
    for (question, row) in batch.into_iter().zip(rows.chunks_exact(genres.len())) {
        match question.drawn {
            Some(listed) => drawn.push((question, listed, row)),
            // Whoever asks no more need not wait for the heat maps of others. Nobody may be there any more.
            None => drop(question.answer.send(Answer { probabilities: row.to_vec(), maps: Vec::new() })),
        }
    }
    if drawn.is_empty() {
        return Ok(());
    }
    let pixels: Vec<u8> = drawn.iter().flat_map(|(question, ..)| &question.square).copied().collect();
    let answers: Vec<_> = drawn.iter().map(|(.., row)| ranked(genres, thresholds, row)).collect();
    let is_drawn = |poster: usize, rank: usize, answered: &Answered<'_>| drawn[poster].1.is_drawn(rank, answered);
    let maps = asking.heat_maps(&pixels, &answers, is_drawn)?;
    for ((question, _, row), maps) in drawn.into_iter().zip(maps) {
        drop(question.answer.send(Answer { probabilities: row.to_vec(), maps }));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_wait_make_a_batch_without_those_who_have_gone() {
        let (asked, mut questions) = mpsc::channel(2 * BATCH);
        let mut waiting = Vec::new();
        for number in 0..BATCH + 5 {
            let (answer, waits) = oneshot::channel();
            asked.try_send(Question { square: vec![number as u8], drawn: None, answer }).ok().unwrap();
            if number != 3 {
                waiting.push(waits);
            }
        }
        drop(asked);
        let mut numbers = || Some(next_batch(&mut questions)?.iter().map(|question| question.square[0]).collect());
        let expected: Vec<u8> = (0..BATCH as u8).filter(|&number| number != 3).collect();
        assert_eq!(numbers(), Some(expected));
        assert_eq!(numbers(), Some((BATCH as u8..BATCH as u8 + 5).collect::<Vec<u8>>()));
        assert_eq!(numbers(), None);
    }
}
