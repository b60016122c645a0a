// Keeps the table of running requests up to date.  All values are set as text, never as markup.
"use strict";
(() => {
  const body = document.getElementById("live-rows");
  const button = document.getElementById("live-pause");
  const state = document.getElementById("live-state");
  const columns = body.dataset.columns.split(" ");
  const styles = {request_id: "id", seconds: "num", cost: "num", started: ""};
  let source = null;

  // The characters that reorder or hide the text around them, as the server's own pages show them.
  const hidden = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]/g;
  const escape = text => text.replace(hidden, char => "\\u" + char.charCodeAt(0).toString(16).padStart(4, "0"));

  const makeRow = row => {
    const line = document.createElement("tr");
    for (const column of columns) {
      const cell = document.createElement("td");
      cell.className = styles[column] ?? "name";
      cell.textContent = escape(String(row[column]));
      line.append(cell);
    }
    return line;
  };

  const show = event => {
    const live = JSON.parse(event.data);
    document.getElementById("live-count").textContent = live.count;
    document.getElementById("live-cost").textContent = live.cost;
    body.replaceChildren(...live.rows.map(makeRow));
    state.textContent = "";
  };

  const start = () => {
    source = new EventSource(body.dataset.events);
    source.onmessage = show;
    source.onerror = () => { state.textContent = "Not connected; the rows may be old."; };
    button.textContent = "Pause";
  };
  const pause = () => {
    source.close();
    source = null;
    button.textContent = "Continue";
    state.textContent = "Paused.";
  };

  button.hidden = false;
  button.addEventListener("click", () => (source === null ? start() : pause()));
  start();
})();
