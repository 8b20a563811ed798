// Turns the meshes of a page: WebGL 2, one canvas a case; without it the still pictures stay.
"use strict";
(() => {
  const VERTEX = `#version 300 es
    uniform mat3 view; uniform vec3 centre, scale;
    in vec3 place, normal; in float apart;
    out vec3 n; out float d;
    void main() {
      n = view * normal; d = apart;
      gl_Position = vec4(scale * (view * (place - centre)), 1.0);
    }`;
  const FRAGMENT = `#version 300 es
    precision highp float;
    uniform vec3 colours[16]; uniform float top; uniform vec4 shell;
    in vec3 n; in float d; out vec4 colour;
    void main() {
      vec3 unit = normalize(gl_FrontFacing ? n : -n);
      float light = 0.5 + 0.5 * max(dot(unit, normalize(vec3(-0.3, 0.5, 0.8))), 0.0);
      float at = 15.0 * clamp(d / top, 0.0, 1.0);
      int low = int(min(at, 14.0));
      vec3 own = mix(colours[low], colours[low + 1], at - float(low));
      colour = shell.a > 0.0
        ? vec4(shell.rgb * light, shell.a * (1.25 - abs(unit.z)))
        : vec4(own * light, 1.0);
    }`;
  const SIDES = { R: [1, 0, 0], L: [-1, 0, 0], A: [0, 1, 0], P: [0, -1, 0], H: [0, 0, 1], F: [0, 0, -1] };
  const AROUND = 1.15; // the letters stand this many radii from the middle
  const BAR_MM = 50;

  const meshes = JSON.parse(document.getElementById("meshes").textContent);
  const buffer = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
  const faces = new Uint32Array(buffer(meshes.faces));
  const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];

  function normalsOf(places) {
    const normals = new Float32Array(places.length);
    const side = (a, b, i) => places[3 * b + i] - places[3 * a + i];
    for (let f = 0; f < faces.length; f += 3) {
      const [a, b, c] = faces.subarray(f, f + 3);
      for (let i = 0; i < 3; i++) {
        const j = (i + 1) % 3, k = (i + 2) % 3;
        const area = side(a, b, j) * side(a, c, k) - side(a, b, k) * side(a, c, j);
        for (const v of [a, b, c]) normals[3 * v + i] += area;
      }
    }
    return normals;
  }

  function distancesOf(places, target) {
    const apart = (n) => Math.hypot(...[0, 1, 2].map((i) => places[3 * n + i] - target[3 * n + i]));
    return Float32Array.from({ length: places.length / 3 }, (_, n) => apart(n));
  }

  function boundsOf(places) { // middle of the box and the farthest vertex from it
    const low = [Infinity, Infinity, Infinity], high = [-Infinity, -Infinity, -Infinity];
    places.forEach((x, n) => { low[n % 3] = Math.min(low[n % 3], x); high[n % 3] = Math.max(high[n % 3], x); });
    const centre = low.map((x, i) => (x + high[i]) / 2);
    let radius = 0;
    for (let n = 0; n < places.length; n += 3)
      radius = Math.max(radius, Math.hypot(...centre.map((x, i) => places[n + i] - x)));
    return { centre, radius };
  }

  function programOf(gl) {
    const program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    return gl.getProgramParameter(program, gl.LINK_STATUS) ? program : null;
  }

  function show(figure) {
    const canvas = figure.querySelector("canvas");
    const gl = canvas.getContext("webgl2", { antialias: true, alpha: false });
    const program = gl && programOf(gl);
    if (!program) return;
    const surfaces = meshes.cases[figure.dataset.case].map((text) => new Float32Array(buffer(text)));
    const target = surfaces[1]; // in order: reference, target, then the methods
    const { centre, radius } = boundsOf(target);
    const index = gl.createBuffer();
    const arrays = surfaces.map((places) => {
      const array = gl.createVertexArray();
      gl.bindVertexArray(array);
      const parts = { place: places, normal: normalsOf(places), apart: distancesOf(places, target) };
      for (const [name, values] of Object.entries(parts)) {
        const at = gl.getAttribLocation(program, name);
        gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
        gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
        gl.enableVertexAttribArray(at);
        gl.vertexAttribPointer(at, name === "apart" ? 1 : 3, gl.FLOAT, false, 0, 0);
      }
      gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, index);
      gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, faces, gl.STATIC_DRAW);
      return array;
    });
    gl.useProgram(program);
    const uniform = (name) => gl.getUniformLocation(program, name);
    gl.uniform3fv(uniform("centre"), centre);
    gl.uniform3fv(uniform("colours"), meshes.colours.flat());
    gl.uniform1f(uniform("top"), meshes.top_mm);
    gl.enable(gl.DEPTH_TEST);
    gl.blendFunc(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA);

    const bar = figure.querySelector(".bar");
    const letters = Object.entries(SIDES).map(([letter, side]) => {
      const span = canvas.parentElement.appendChild(document.createElement("span"));
      span.textContent = letter;
      span.className = "side";
      return { span, side };
    });
    let yaw, pitch, zoom, asked = false, seen = true, told = 0;
    let turning = !matchMedia("(prefers-reduced-motion: reduce)").matches;
    const reset = () => { yaw = 0; pitch = 0.15; zoom = 1; }; // from the front, a little from above
    const ask = () => { if (!asked) { asked = true; requestAnimationFrame(draw); } };

    function draw(now) {
      asked = false;
      if (turning) yaw += 0.0004 * Math.min(now - told, 50);
      told = now;
      const width = canvas.clientWidth, height = canvas.clientHeight, fine = devicePixelRatio || 1;
      if (canvas.width !== Math.round(width * fine) || canvas.height !== Math.round(height * fine)) {
        canvas.width = Math.round(width * fine);
        canvas.height = Math.round(height * fine);
      }
      const [c, s, C, S] = [Math.cos(yaw), Math.sin(yaw), Math.cos(pitch), Math.sin(pitch)];
      const right = [-c, -s, 0], up = [S * s, -S * c, C], front = [-C * s, C * c, S];
      const reach = zoom / (1.25 * radius); // half the smaller side of the canvas per mm
      const small = Math.min(width, height);
      const [wide, high] = [reach * small / width, reach * small / height];
      gl.viewport(0, 0, canvas.width, canvas.height);
      gl.clearColor(0.96, 0.97, 0.98, 1);
      gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
      const rows = [right, up, front];
      gl.uniformMatrix3fv(uniform("view"), false, [0, 1, 2].flatMap((i) => rows.map((row) => row[i])));
      gl.uniform3f(uniform("scale"), wide, high, -0.2 / radius);
      const paint = (which, shell) => {
        gl.uniform4fv(uniform("shell"), shell);
        gl.bindVertexArray(arrays[which]);
        gl.drawElements(gl.TRIANGLES, faces.length, gl.UNSIGNED_INT, 0);
      };
      paint(+figure.querySelector("input[type=radio]:checked").value, [0, 0, 0, 0]);
      gl.enable(gl.BLEND);
      gl.depthMask(false);
      for (const box of figure.querySelectorAll("input[type=checkbox]:checked"))
        paint(+box.value, [...meshes.shells[+box.value], 0.45]);
      gl.depthMask(true);
      gl.disable(gl.BLEND);
      for (const { span, side } of letters) {
        span.style.left = `${50 + 50 * AROUND * radius * wide * dot(side, right)}%`;
        span.style.top = `${50 - 50 * AROUND * radius * high * dot(side, up)}%`;
        const near = dot(side, front); // those before and behind the surface would only hide it
        span.style.opacity = Math.abs(near) > 0.9 ? 0 : 0.65 + 0.35 * near;
      }
      bar.style.width = `${BAR_MM * reach * small / 2}px`;
      if (turning && seen) ask();
    }

    const turn = (dx, dy) => {
      turning = false;
      yaw -= dx;
      pitch = Math.max(-Math.PI / 2, Math.min(Math.PI / 2, pitch + dy));
      ask();
    };
    const enlarge = (factor) => { turning = false; zoom = Math.max(0.3, Math.min(20, zoom * factor)); ask(); };
    canvas.addEventListener("pointerdown", (event) => { turning = false; canvas.setPointerCapture(event.pointerId); });
    canvas.addEventListener("pointermove", (event) => {
      if (event.buttons & 1) turn(event.movementX * 0.008, event.movementY * 0.008);
    });
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      enlarge(Math.exp(-0.0015 * event.deltaY * (event.deltaMode ? 30 : 1)));
    }, { passive: false });
    canvas.addEventListener("dblclick", () => { reset(); ask(); });
    const keys = {
      ArrowLeft: () => turn(-0.1, 0), ArrowRight: () => turn(0.1, 0), ArrowUp: () => turn(0, -0.1),
      ArrowDown: () => turn(0, 0.1), "+": () => enlarge(1.15), "-": () => enlarge(1 / 1.15),
    };
    canvas.addEventListener("keydown", (event) => {
      if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
    });
    canvas.addEventListener("webglcontextlost", () => figure.classList.remove("live"));
    figure.addEventListener("change", ask);
    new ResizeObserver(ask).observe(canvas);
    new IntersectionObserver(([entry]) => { seen = entry.isIntersecting; ask(); }).observe(canvas);
    reset();
    figure.classList.add("live");
    ask();
  }

  document.querySelectorAll("figure.turning").forEach(show);
})();
