// Scroll through the slices of a case. One viewer serves the page; it moves into the case that is opened.
(() => {
  "use strict";
  const BLACK = [0, 0, 0, 1];
  let viewer = null; // promise of the one NiiVue
  let shown = null; // the opened case
  let turn = 0; // counts openings: a case that was closed while it loaded is dropped

  const packed = (id) => Uint8Array.from(atob(document.getElementById(id).textContent), (letter) => letter.charCodeAt(0));
  const unpacked = (id) =>
    new Response(new Blob([packed(id)]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();

  async function niivue() {
    const script = document.createElement("script");
    script.type = "module";
    script.textContent = new TextDecoder().decode(await unpacked("niivue"));
    const Niivue = await new Promise((resolve, reject) => {
      window.addEventListener("niivue-loaded", (event) => resolve(event.detail), { once: true });
      script.addEventListener("error", () => reject(new Error("the viewer did not start")), { once: true });
      document.head.append(script);
    });
    const view = new Niivue({
      backColor: BLACK, crosshairColor: [1, 1, 1, 0.45], crosshairWidth: 1, crosshairGap: 6, fontColor: [0.85, 0.85, 0.85, 1],
      isRadiologicalConvention: true, sagittalNoseLeft: true, multiplanarShowRender: 0, multiplanarPadPixels: 6,
      isColorbar: false, dragAndDropEnabled: false, loadingText: "", show3Dcrosshair: false, logLevel: "error",
    });
    const canvas = document.createElement("canvas");
    const stage = document.createElement("div");
    stage.className = "stage";
    stage.append(canvas);
    return { view, stage, canvas };
  }

  // Reference and prediction of a label volume as two arrays of levels.
  function sides(buffer) {
    const start = new DataView(buffer).getFloat32(108, true);
    const both = new Uint8Array(buffer, start);
    return { start, reference: both.map((value) => value & 15), prediction: both.map((value) => value >> 4) };
  }

  function colours(root) {
    const palette = JSON.parse(root.dataset.colours);
    const channel = (from) => [0, ...palette.map((colour) => parseInt(colour.slice(from, from + 2), 16))];
    const alpha = [0, ...palette.map(() => 255)];
    return { R: channel(1), G: channel(3), B: channel(5), A: alpha, I: alpha.map((_, level) => level),
             labels: alpha.map(String), min: 0, max: palette.length };
  }

  async function open(root) {
    const mine = ++turn;
    const status = root.querySelector("[role=status]");
    const controls = root.querySelector("fieldset");
    shown = root;
    status.textContent = "Loading …";
    try {
      viewer ??= niivue();
      const { view, stage, canvas } = await viewer;
      const image = await unpacked(root.dataset.image);
      const labels = await unpacked(root.dataset.labels);
      if (mine !== turn) return;
      root.querySelector(".frame").replaceChildren(stage);
      if (!view.canvas) await view.attachToCanvas(canvas);
      while (view.volumes.length) view.removeVolume(view.volumes.at(-1));
      view.closeDrawing();
      const { start, reference, prediction } = sides(labels);
      const guess = labels.slice(0);
      new Uint8Array(guess, start).set(prediction);
      await view.loadFromArrayBuffer(image, "image.nii");
      await view.loadFromArrayBuffer(guess, "prediction.nii");
      if (mine !== turn) return;
      view.volumes[1].setColormapLabel(colours(root));
      view.createEmptyDrawing();
      view.drawBitmap.set(reference);
      const white = reference.reduce((most, level) => Math.max(most, level), 0) + 1;
      const line = Array(white).fill(255);
      view.setDrawColormap({ R: line, G: line, B: line, A: [0, ...line.slice(1)], I: line.map((_, level) => level),
                             labels: line.map((_, level) => String(level)) });
      view.refreshDrawing(false);
      const [, ...size] = view.volumes[0].dimsRAS;
      const sliders = [...root.querySelectorAll("input[type=range]")];
      const show = (voxel) => {
        sliders.forEach((slider) => {
          const axis = Number(slider.dataset.axis);
          const place = Math.min(size[axis] - 1, Math.max(0, Math.round(voxel[axis])));
          slider.max = size[axis] - 1;
          slider.value = place;
          slider.nextElementSibling.textContent = `${place + 1} of ${size[axis]}`;
        });
      };
      const go = (voxel) => {
        view.scene.crosshairPos = view.vox2frac(voxel);
        view.drawScene();
        show(voxel);
      };
      const layers = () => {
        const on = (name) => root.querySelector(`input[name=${name}]`)?.checked ?? false;
        // Below an invisible image nothing is drawn, so it is made black. Where it is shown, the brightest tissue stays
        // grey beside white outlines.
        view.volumes[0].cal_min = 0;
        view.volumes[0].cal_max = on("image") ? 320 : 1e6;
        view.setOpacity(1, on("prediction") ? 0.55 : 0);
        view.drawRimOpacity = on("reference") ? 1 : -1;
        view.setDrawOpacity(on("reference") ? 0.002 : 0);
        view.updateGLVolume();
      };
      view.onLocationChange = (where) => show(where.vox);
      const here = () => [0, 1, 2].map((axis) => Number(sliders.find((each) => Number(each.dataset.axis) === axis).value));
      controls.oninput = (event) => {
        if (event.target.type === "checkbox") layers();
        else if (event.target.type === "radio") {
          // Another modality of the case, at the same place.
          Object.assign(root.dataset, { image: event.target.value, place: JSON.stringify(here()) });
          delete root.dataset.ready;
          open(root);
        } else go(here());
      };
      layers();
      go(JSON.parse(root.dataset.place));
      view.resizeListener();
      controls.disabled = false;
      status.textContent = "";
      root.dataset.ready = "true";
    } catch (error) {
      status.textContent = `This browser cannot show the slices (${error.message}); the picture above remains.`;
    }
  }

  function close(root) {
    delete root.dataset.ready;
    root.querySelector("fieldset").disabled = true;
    if (shown === root) {
      shown = null;
      turn += 1;
    }
  }

  document.querySelectorAll("details").forEach((details) => {
    details.addEventListener("toggle", () => {
      const root = details.querySelector(":scope > .viewer");
      if (!root) return;
      if (!details.open) return close(root);
      if (shown && shown !== root) shown.closest("details").open = false;
      open(root);
    });
  });
  const follow = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target && target.tagName === "DETAILS") {
      target.open = true;
      target.scrollIntoView();
    }
  };
  window.addEventListener("hashchange", follow);
  follow();
  const first = document.querySelector("details[open] > .viewer");
  if (first && !shown) open(first);
})();
