"use strict";
// Thresholds are tried out here: the scores of the table are computed again from the answers that the page holds.
(() => {
  const { genres, thresholds, tuned, probabilities, targets } = JSON.parse(document.getElementById("data").textContent);
  const table = document.getElementById("thresholds-table");
  const rows = [...table.querySelectorAll("tr[data-genre]")];
  const sliders = rows.map((row) => row.querySelector("input"));
  const posters = targets.length / genres.length;
  // Those in use. A slider has steps, and a tuned threshold may lie between two of them.
  let current = thresholds.slice();

  // What is 0/0 counts as 0, as in the tables that `onesheet evaluate` prints.
  const ratio = (a, b) => (b === 0 ? 0 : a / b);

  // Probabilities have 32 bits, and a threshold is compared with them in as many.
  const isNamed = (row, genre) => probabilities[row * genres.length + genre] >= Math.fround(current[genre]);

  const scoresOf = (genre) => {
    let tp = 0, fp = 0, fn = 0;
    for (let row = 0; row < posters; row += 1) {
      const target = targets[row * genres.length + genre] === 1;
      const named = isNamed(row, genre);
      tp += named && target;
      fp += named && !target;
      fn += !named && target;
    }
    return {
      f1: ratio(2 * tp, 2 * tp + fp + fn), precision: ratio(tp, tp + fp), recall: ratio(tp, tp + fn),
      named: tp + fp, support: tp + fn, wrong: fp + fn,
    };
  };

  const exactMatches = () => {
    let exact = 0;
    for (let row = 0; row < posters; row += 1) {
      exact += genres.every((_, genre) => isNamed(row, genre) === (targets[row * genres.length + genre] === 1));
    }
    return exact;
  };

  // To so many digits, as the program itself writes numbers. Where a number lies just between two of them, an odd multiple of a power of
  // two, that is the even one, and toFixed would take the upper.
  const rounded = (value, digits) => {
    if ((value * 2 ** (digits + 1)) % 2 !== 1) return value.toFixed(digits);
    const lower = Math.floor(value * 10 ** digits);
    return ((lower + (lower % 2)) / 10 ** digits).toFixed(digits);
  };

  const shown = (score, value) => (score === "named" ? String(value) : rounded(value, 4));

  const fill = (row, scores) => {
    for (const cell of row.querySelectorAll("td[data-score]")) {
      cell.textContent = shown(cell.dataset.score, scores[cell.dataset.score]);
    }
  };

  const show = () => {
    const scores = genres.map((_, genre) => scoresOf(genre));
    rows.forEach((row, genre) => {
      const { f1, precision, recall } = scores[genre];
      fill(row, scores[genre]);
      row.querySelector("output").textContent = current[genre].toFixed(3);
      sliders[genre].value = current[genre];
      const told = `${current[genre].toFixed(3)}: F1 ${f1.toFixed(2)}, precision ${precision.toFixed(2)}, recall ${recall.toFixed(2)}`;
      sliders[genre].setAttribute("aria-valuetext", told);
    });
    const weights = { weighted: scores.map(({ support }) => support), macro: scores.map(() => 1) };
    for (const [name, weight] of Object.entries(weights)) {
      const sum = weight.reduce((a, b) => a + b, 0);
      const mean = (score) => ratio(scores.reduce((total, of, genre) => total + weight[genre] * of[score], 0), sum);
      fill(table.querySelector(`tr[data-mean="${name}"]`), {
        f1: mean("f1"), precision: mean("precision"), recall: mean("recall"),
      });
    }
    const wrong = scores.reduce((total, of) => total + of.wrong, 0);
    const percent = (share) => `${rounded(100 * share, 2)} %`;
    document.getElementById("exact-match").textContent = percent(ratio(exactMatches(), posters));
    document.getElementById("binary-accuracy").textContent = percent(1 - ratio(wrong, posters * genres.length));
  };

  sliders.forEach((slider, genre) => {
    slider.hidden = false;
    slider.addEventListener("input", () => {
      current[genre] = Number(slider.value);
      show();
    });
  });
  const sets = { thresholds, tuned };
  for (const button of document.querySelectorAll("button[data-set]")) {
    button.parentElement.hidden = false;
    button.addEventListener("click", () => {
      current = sets[button.dataset.set].slice();
      show();
    });
  }
  show();

  // On paper nothing can be opened.
  addEventListener("beforeprint", () => {
    for (const closed of document.querySelectorAll("details:not([open])")) {
      closed.open = true;
      closed.dataset.closed = "";
    }
  });
  addEventListener("afterprint", () => {
    for (const opened of document.querySelectorAll("details[data-closed]")) {
      opened.open = false;
      delete opened.dataset.closed;
    }
  });
})();
