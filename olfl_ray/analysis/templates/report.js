"use strict";
// Draws each figure of the page in the colors of the reader's theme.
(() => {
  const config = {
    responsive: true,
    displaylogo: false,
    modeBarButtons: [["zoom2d", "pan2d", "autoScale2d", "resetScale2d"], ["toImage"]],
    toImageButtonOptions: { format: "svg" },
  };

  function template() {
    const style = getComputedStyle(document.documentElement);
    const [ink, soft, line, page, card] = ["--ink", "--soft", "--grid", "--page", "--card"].map((name) =>
      style.getPropertyValue(name).trim(),
    );
    const axis = {
      automargin: true, gridcolor: line, griddash: "dot", linecolor: soft, showline: true, zeroline: false, ticks: "outside",
      tickcolor: soft, title: { standoff: 10 },
    };
    const family = getComputedStyle(document.body).fontFamily;
    return {
      layout: {
        font: { family, size: 13, color: ink },
        paper_bgcolor: "rgba(0,0,0,0)",
        plot_bgcolor: "rgba(0,0,0,0)",
        margin: { l: 64, r: 16, t: 44, b: 56 },
        xaxis: axis,
        yaxis: axis,
        legend: { bgcolor: "rgba(0,0,0,0)", itemsizing: "constant" },
        hoverlabel: { bgcolor: card, bordercolor: line, align: "left", font: { family, color: ink } },
        annotationdefaults: { bgcolor: page, font: { color: ink } },
        updatemenudefaults: { bgcolor: card, bordercolor: line, font: { size: 12, color: soft } },
        modebar: { bgcolor: "rgba(0,0,0,0)", color: soft, activecolor: ink },
      },
    };
  }

  function draw() {
    const shared = template();
    for (const box of document.querySelectorAll(".chart")) {
      const figure = JSON.parse(box.querySelector("script").textContent);
      let target = box.querySelector("div");
      if (target === null) target = box.appendChild(document.createElement("div"));
      target.style.height = "100%";
      Plotly.react(target, figure.data, { ...figure.layout, template: shared }, config);
    }
  }

  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
})();
