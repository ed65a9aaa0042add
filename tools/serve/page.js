"use strict";
// Posters that are dropped, pasted or picked are asked about one by one, a few at a time, so that each has its own answer or error. The
// server takes those that wait together.
(() => {
  const AT_A_TIME = 4;
  const KINDS = ["image/jpeg", "image/png", "image/webp"];
  const drop = document.getElementById("drop");
  const files = document.getElementById("files");
  const list = document.getElementById("posters");
  const progress = document.getElementById("progress");
  const results = document.getElementById("results");
  const mostBytes = Number(drop.dataset.mostBytes);
  const cards = [];
  const waiting = [];
  let [atWork, asked, done, began] = [0, 0, 0, 0];

  const element = (name, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  };
  const pause = (seconds) => new Promise((resume) => setTimeout(resume, 1000 * seconds));
  const posters = (count) => (count === 1 ? "1 poster" : `${count} posters`);

  // What the server says of a picture. An error has the words to show.
  const ask = async (file, query) => {
    for (;;) {
      let response, said;
      try {
        response = await fetch(`answers${query}`, { method: "POST", headers: { "Content-Type": file.type }, body: file });
        said = await response.json();
      } catch {
        throw new Error("the server does not answer; is it still running?");
      }
      if (response.ok) return said.answers[0];
      if (response.status !== 503) throw new Error(said.detail);
      await pause(Number(response.headers.get("Retry-After")));
    }
  };

  const refusal = (file) => {
    if (!KINDS.includes(file.type)) return "it is no JPEG, PNG or WebP picture";
    return file.size > mostBytes ? `it has ${file.size} bytes, and ${mostBytes} is the most; make it smaller` : null;
  };

  const show = () => {
    const seconds = ((performance.now() - began) / 1000).toFixed(1);
    if (done < asked) progress.textContent = `${done} of ${posters(asked)} answered …`;
    else progress.textContent = asked === 0 ? "" : `${posters(asked)} done in ${seconds} s`;
  };

  const tell = (card, text, isFault) => {
    card.told.textContent = text;
    card.told.classList.toggle("fault", isFault);
    card.told.hidden = text === "";
  };

  // The heat map of the genre of this rank in place of the picture, or the picture itself again.
  const switchMap = async (card, rank) => {
    const button = card.switches[rank];
    const isOn = button.getAttribute("aria-pressed") === "true";
    card.wanted = isOn ? null : rank;
    card.switches.forEach((other, at) => other.setAttribute("aria-pressed", String(!isOn && at === rank)));
    card.scale.hidden = true;
    card.image.src = card.address;
    card.image.alt = `Poster ${card.file.name}`;
    tell(card, "", false);
    if (isOn) return;
    try {
      if (!card.maps[rank]) {
        tell(card, "looking …", false);
        // Drawn are those that are listed, so no more are listed than it takes.
        const { genres } = await ask(card.file, `?explain=true&top=${rank + 1}`);
        card.maps = genres.map(({ picture }) => picture);
      }
      if (card.wanted !== rank) return;
      card.image.src = card.maps[rank];
      card.scale.hidden = false;
      card.image.alt = `Where the model sees ${button.dataset.genre} on ${card.file.name}`;
      tell(card, card.image.alt, false);
    } catch (error) {
      if (card.wanted !== rank) return;
      button.setAttribute("aria-pressed", "false");
      tell(card, error.message, true);
    }
  };

  const row = (card, { genre, probability, threshold, named }, rank) => {
    const name = element("span", { className: named ? "named" : "", textContent: named ? `✓ ${genre}` : genre });
    if (named) name.append(element("span", { className: "hidden", textContent: ", named" }));
    const share = element("span", { className: "probability", textContent: probability.toFixed(4) });
    share.append(element("span", { className: "hidden", textContent: ` of the threshold ${threshold.toFixed(4)}` }));
    const button = element("button", { type: "button", textContent: "where" });
    button.append(element("span", { className: "hidden", textContent: ` the model sees ${genre}` }));
    button.dataset.genre = genre;
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => switchMap(card, rank));
    card.switches.push(button);
    const bar = element("span", { className: "bar", title: `threshold ${threshold.toFixed(4)}` }, element("i"), element("b"));
    bar.setAttribute("aria-hidden", "true");
    bar.style.setProperty("--share", probability);
    bar.style.setProperty("--threshold", threshold);
    const made = element("li", {}, name, share, button, bar);
    made.dataset.genre = genre;
    return made;
  };

  const answer = async (card) => {
    try {
      const refused = refusal(card.file);
      if (refused) throw new Error(refused);
      const { genres } = await ask(card.file, "");
      card.place.append(element("ul", { className: "genres" }, ...genres.map((genre, rank) => row(card, genre, rank))));
      tell(card, "", false);
    } catch (error) {
      tell(card, `${card.file.name}: ${error.message}`, true);
    }
    card.place.setAttribute("aria-busy", "false");
  };

  const work = async () => {
    atWork += 1;
    while (waiting.length > 0) {
      const card = waiting.shift();
      await answer(card);
      // Nobody may want to see it any more.
      if (card.place.isConnected) {
        done += 1;
        show();
      }
    }
    atWork -= 1;
  };

  const add = (file) => {
    const card = { file, address: URL.createObjectURL(file), maps: [], switches: [], wanted: null };
    card.image = element("img", { src: card.address, alt: `Poster ${file.name}` });
    // What cannot be read is no picture to show either.
    card.image.addEventListener("error", () => { card.image.hidden = true; });
    card.scale = element("p", { className: "scale", hidden: true }, element("span"));
    card.told = element("p", { className: "told", textContent: "waiting …" });
    card.told.setAttribute("role", "status");
    const figure = element("figure", {}, card.image, card.scale, element("figcaption", { textContent: file.name }));
    card.place = element("li", {}, figure, card.told);
    card.place.setAttribute("aria-busy", "true");
    list.append(card.place);
    cards.push(card);
    waiting.push(card);
    asked += 1;
  };

  const take = (chosen) => {
    if (chosen.length === 0) return;
    if (done === asked) [asked, done, began] = [0, 0, performance.now()];
    results.hidden = false;
    for (const file of chosen) add(file);
    show();
    while (atWork < AT_A_TIME && waiting.length > 0) work();
  };

  files.addEventListener("change", () => {
    take([...files.files]);
    // So that the same file can be picked again.
    files.value = "";
  });
  addEventListener("paste", (event) => take([...event.clipboardData.files]));
  // Also beside the field: a browser would else leave the page for the picture.
  addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) drop.classList.remove("over");
  });
  addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    take([...event.dataTransfer.files]);
  });
  document.getElementById("clear").addEventListener("click", () => {
    waiting.length = 0;
    cards.splice(0).forEach(({ address }) => URL.revokeObjectURL(address));
    list.replaceChildren();
    results.hidden = true;
    [asked, done] = [0, 0];
    show();
    files.focus();
  });
})();
