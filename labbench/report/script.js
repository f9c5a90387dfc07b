(() => {
  const root = document.documentElement;
  const remember = (key, value) => { try { localStorage.setItem(key, value); } catch {} };

  const theme = document.getElementById("theme");
  const names = { "": "as the system", light: "light", dark: "dark" };
  const signs = { "": "◐", light: "○", dark: "●" };
  const label = () => {
    const now = root.dataset.theme || "";
    theme.textContent = signs[now];
    theme.setAttribute("aria-label", theme.title = `Colours: ${names[now]}`);
  };
  theme.addEventListener("click", () => {
    const order = ["", "light", "dark"];
    root.dataset.theme = order[(order.indexOf(root.dataset.theme || "") + 1) % order.length];
    remember("labbench-theme", root.dataset.theme);
    label();
  });
  label();

  const blocks = [...document.querySelectorAll("details.code")];
  const code = document.getElementById("code");
  if (code && blocks.length) {
    code.hidden = false;
    code.addEventListener("click", () => {
      const open = code.getAttribute("aria-pressed") !== "true";
      code.setAttribute("aria-pressed", open);
      code.textContent = open ? "Hide code" : "Show code";
      root.classList.toggle("with-code", open);
      blocks.forEach((block) => { block.open = open; });
    });
  }

  const contents = document.querySelector(".contents details");
  if (contents && matchMedia("(max-width: 75rem)").matches) contents.open = false;
  const links = new Map([...document.querySelectorAll(".contents a")].map((a) => [a.hash.slice(1), a]));
  if (links.size && "IntersectionObserver" in window) {
    const seen = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        links.forEach((a) => a.removeAttribute("aria-current"));
        links.get(entry.target.id)?.setAttribute("aria-current", "true");
      }
    }, { rootMargin: "-10% 0px -75% 0px" });
    links.forEach((_, id) => { const heading = document.getElementById(id); if (heading) seen.observe(heading); });
  }
})();
