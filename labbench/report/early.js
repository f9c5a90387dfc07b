// Before the first paint, so that a chosen theme does not flash. Storage may be refused for file:// pages.
try { const theme = localStorage.getItem("labbench-theme"); if (theme) document.documentElement.dataset.theme = theme; } catch {}
document.documentElement.classList.add("scripted");
