// A switch, and a message of the browser for each end of a run that is news to this page.

const KEY = "cifar-lab-notify";
const told = (window.cifarLabTold ??= new Set());  // of the window: what is mounted anew tells nothing twice

function isOn() {
  return Notification.permission === "granted" && localStorage.getItem(KEY) === "on";
}

function label(button) {
  button.textContent = isOn() ? "🔔 Notifications on" : "Notify me when runs end";
  button.setAttribute("aria-pressed", isOn());
  button.disabled = Notification.permission === "denied";
  button.title = button.disabled ? "This browser does not allow notifications for this page: allow them in its settings." : "";
}

async function toggle(button) {
  if (isOn()) localStorage.removeItem(KEY);
  else if ((await Notification.requestPermission()) === "granted") localStorage.setItem(KEY, "on");
  label(button);
}

function tell(news) {
  const name = `${news.id} ${news.text}`;
  if (told.has(name)) return;
  told.add(name);
  if (!isOn()) return;
  const message = new Notification(news.title, { body: news.text, tag: news.id });
  message.onclick = () => { window.focus(); message.close(); };
}

export default function ({ data, parentElement }) {
  const button = parentElement.querySelector("button");
  if (!("Notification" in window) || !window.isSecureContext) return;
  button.hidden = !data.offer;
  button.onclick = () => toggle(button);
  label(button);
  data.news.forEach(tell);
}
