"use strict";
// Moves the operating point: every number was computed when the page was written.
(function () {
  var points = JSON.parse(document.getElementById("points").textContent);
  var slider = document.getElementById("slider");
  var back = document.getElementById("back");
  var chosen = document.getElementById("chosen");
  var bars = document.getElementById("bars").children;
  var own = points.findIndex(function (point) { return point.own; });

  function showRate(bar, rate) {
    bar.querySelector(".fill").style.width = rate.width + "%";
    bar.querySelector(".bar-text").textContent = rate.text;
  }

  function show(number) {
    var point = points[number];
    document.querySelectorAll("[data-field]").forEach(function (field) {
      field.textContent = point.texts[field.dataset.field];
    });
    chosen.style.left = point.left + "%";
    chosen.style.top = point.top + "%";
    point.rates.forEach(function (rate, exit) { showRate(bars[exit], rate); });
    slider.setAttribute("aria-valuetext", point.spoken);
    back.disabled = number === own;
  }

  slider.addEventListener("input", function () { show(Number(slider.value)); });
  back.addEventListener("click", function () {
    slider.value = own;
    show(own);
    slider.focus();
  });
  show(Number(slider.value));
})();
