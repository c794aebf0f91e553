/**
 * The machine as a picture: who owns a device, the device with its stream, the SMMU that it is behind. Three
 * columns, the devices in the order of their SMMUs, so that the lines on the right never cross.
 */
import type { StressDevice, TrafficKind } from '../stress/types.js';
import { html, type Markup } from './html.js';
import { PALETTE_SIZE } from './page-data.js';
import { plural } from './units.js';

const ROW = 44;
const BOX = 34;
const TOP = 30;
const WIDTH = 760;
const OWNER = { x: 1, width: 150 };
const DEVICE = { x: 270, width: 240 };
const SMMU = { x: 620, width: 139 };
/** Characters that fit a box; the rest is in its title. */
const OWNER_CHARS = 19;
const DEVICE_CHARS = 28;
const SMMU_CHARS = 16;

const KIND_NAMES: Readonly<Record<TrafficKind, string>> = {
  nic: 'NIC',
  nvme: 'NVMe disk',
  gpu: 'GPU',
  guest: 'assigned to a guest',
};

interface Placed {
  readonly device: StressDevice;
  readonly y: number;
}

export function topologySvg(iommus: readonly string[], devices: readonly StressDevice[]): Markup {
  const placed: Placed[] = [];
  const smmus: { name: string; index: number; y: number; devices: number }[] = [];
  let row = 0;
  for (const [index, name] of iommus.entries()) {
    const own = devices.filter(({ iommu }) => iommu === index);
    const first = row;
    for (const device of own) placed.push({ device, y: TOP + ROW * row++ });
    if (own.length === 0) row++;
    smmus.push({ name, index, y: TOP + (ROW * (first + row - 1)) / 2, devices: own.length });
  }
  const height = TOP + ROW * row;
  const owners = ownersOf(placed);
  // Spread over the height, in the order of where their devices are.
  const step = (height - TOP) / Math.max(owners.length, 1);
  const owned = owners.map((owner, i) => ({ ...owner, y: TOP + step * i + (step - ROW) / 2 }));
  const text = `${plural(iommus.length, 'SMMU')}: ${smmus
    .map(({ name, devices: n }) => `${name} with ${plural(n, 'device')}`)
    .join(', ')}. ${plural(owners.length, 'owner')}: ${owners.map(({ name }) => name).join(', ')}.`;
  return html`<svg viewBox="0 0 ${WIDTH} ${height}" role="img" aria-label="${text}">
<text class="head" x="${OWNER.x}" y="16">owner</text><text class="head" x="${DEVICE.x}" y="16">device</text><text class="head" x="${SMMU.x}" y="16">SMMU</text>
${owned.map(({ devices: own, y, color }) =>
  own.map(
    (to) =>
      html`<path class="s${color}" d="${curve(OWNER.x + OWNER.width, y + BOX / 2, DEVICE.x, to.y + BOX / 2)}"></path>`,
  ),
)}
${placed.map(
  ({ device, y }) =>
    html`<path class="s${device.iommu % PALETTE_SIZE}" d="${curve(DEVICE.x + DEVICE.width, y + BOX / 2, SMMU.x, smmus[device.iommu]!.y + BOX / 2)}"></path>`,
)}
${owned.map(({ name, more, y }) => box(OWNER, y, name, more, OWNER_CHARS))}
${placed.map(({ device, y }) =>
  box(
    DEVICE,
    y,
    device.label,
    `${KIND_NAMES[device.kind]}, stream 0x${device.streamId.toString(16)}`,
    DEVICE_CHARS,
  ),
)}
${smmus.map(({ name, y, devices: n, index }) => html`${box(SMMU, y, name, plural(n, 'device'), SMMU_CHARS)}<rect class="f${index % PALETTE_SIZE}" x="${SMMU.x}" y="${y}" width="5" height="${BOX}" rx="2"></rect>`)}
</svg>`;
}

interface Owner {
  readonly name: string;
  readonly more: string;
  readonly color: number;
  readonly devices: readonly Placed[];
}

/** Guests and host address spaces, by where their first device is. */
function ownersOf(placed: readonly Placed[]): Owner[] {
  const groups = new Map<string, Placed[]>();
  for (const entry of placed) {
    const { guest, space } = entry.device;
    const name = guest !== null ? `guest ${guest}` : `host space ${space ?? 0}`;
    const group = groups.get(name);
    if (group === undefined) groups.set(name, [entry]);
    else group.push(entry);
  }
  const middle = (list: readonly Placed[]) => list.reduce((sum, { y }) => sum + y, 0) / list.length;
  return [...groups]
    .sort(([, a], [, b]) => middle(a) - middle(b))
    .map(([name, list], i) => ({
      name,
      more: plural(list.length, 'device'),
      color: (i + 4) % PALETTE_SIZE,
      devices: list,
    }));
}

function curve(x0: number, y0: number, x1: number, y1: number): string {
  const middle = (x0 + x1) / 2;
  return `M${x0} ${y0.toFixed(1)}C${middle} ${y0.toFixed(1)} ${middle} ${y1.toFixed(1)} ${x1} ${y1.toFixed(1)}`;
}

function box(
  { x, width }: { readonly x: number; readonly width: number },
  y: number,
  name: string,
  more: string,
  fits: number,
): Markup {
  const shown = name.length <= fits ? name : `${name.slice(0, fits - 1)}…`;
  return html`<g><title>${name}: ${more}</title><rect class="box" x="${x}" y="${y.toFixed(1)}" width="${width}" height="${BOX}" rx="7"></rect><text x="${x + 12}" y="${(y + 15).toFixed(1)}">${shown}</text><text class="dim" x="${x + 12}" y="${(y + 28).toFixed(1)}">${more}</text></g>`;
}
