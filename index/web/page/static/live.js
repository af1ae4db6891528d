// Shows what the daemon tells by server-sent events: HTML by the id of the element that shows it.
// A hidden page asks for nothing; one that was away gets all when it is back.

const status = document.getElementById("connection");
const AGAIN_MS = 5000;
let source = null;
let timer = 0;

function say(text, lost) {
  if (status.textContent !== text) {
    status.textContent = text;
  }
  status.classList.toggle("lost", lost);
}

function show(event) {
  for (const [id, html] of Object.entries(JSON.parse(event.data))) {
    const element = document.getElementById(id);
    if (element) {
      element.innerHTML = html;
    }
  }
  say("live", false);
}

function open() {
  close();
  source = new EventSource(status.dataset.source);
  source.onmessage = show;
  source.onerror = () => {
    say("connection lost, trying again", true);
    // The browser tries again by itself, but not after an answer that is no stream.
    if (source && source.readyState === EventSource.CLOSED) {
      timer = setTimeout(open, AGAIN_MS);
    }
  };
}

function close() {
  clearTimeout(timer);
  if (source) {
    source.close();
    source = null;
  }
}

document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
addEventListener("pagehide", close);
addEventListener("pageshow", (event) => event.persisted && open());
if (!document.hidden) {
  open();
}
