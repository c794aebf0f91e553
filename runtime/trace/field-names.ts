/** Which fields of the ABI's structs are flags or enumerators, and what their values are called in the headers. */
import * as mock from '../../uapi/drivers/selftest.js';
import * as abi from '../../uapi/index.js';
import * as tests from '../../uapi/iommufd/test.js';

type AbiName = keyof typeof abi | keyof typeof tests | keyof typeof mock;
const VALUES: Readonly<Record<string, unknown>> = { ...abi, ...tests, ...mock };

/** A field whose values have names. */
export interface NamedValues {
  /** Bits to be taken apart, or one of a list. */
  readonly kind: 'flags' | 'enum';
  readonly byName: ReadonlyMap<string, bigint>;
  /** Where two names share a value, the first. */
  readonly byValue: ReadonlyMap<bigint, string>;
}

function named(kind: NamedValues['kind'], names: readonly AbiName[]): NamedValues {
  const pairs = names.map((name): [string, bigint] => [name, BigInt(VALUES[name] as number)]);
  const byValue = new Map<bigint, string>();
  for (const [name, value] of pairs) if (!byValue.has(value)) byValue.set(value, name);
  return { kind, byName: new Map(pairs), byValue };
}
const flags = (...names: readonly AbiName[]) => named('flags', names);
const one = (...names: readonly AbiName[]) => named('enum', names);

const MAP = flags('IOMMU_IOAS_MAP_FIXED_IOVA', 'IOMMU_IOAS_MAP_WRITEABLE', 'IOMMU_IOAS_MAP_READABLE');

/** By struct tag and field, in the codec's spelling. */
const NAMED: Readonly<Record<string, NamedValues>> = {
  'iommu_ioas_map.flags': MAP,
  'iommu_ioas_map_file.flags': MAP,
  'iommu_ioas_copy.flags': MAP,
  'iommu_option.optionId': one('IOMMU_OPTION_RLIMIT_MODE', 'IOMMU_OPTION_HUGE_PAGES'),
  'iommu_option.op': one('IOMMU_OPTION_OP_SET', 'IOMMU_OPTION_OP_GET'),
  'iommu_vfio_ioas.op': one('IOMMU_VFIO_IOAS_GET', 'IOMMU_VFIO_IOAS_SET', 'IOMMU_VFIO_IOAS_CLEAR'),
  'iommu_hwpt_alloc.flags': flags(
    'IOMMU_HWPT_ALLOC_NEST_PARENT',
    'IOMMU_HWPT_ALLOC_DIRTY_TRACKING',
    'IOMMU_HWPT_FAULT_ID_VALID',
    'IOMMU_HWPT_ALLOC_PASID',
  ),
  'iommu_hwpt_alloc.dataType': one(
    'IOMMU_HWPT_DATA_NONE',
    'IOMMU_HWPT_DATA_VTD_S1',
    'IOMMU_HWPT_DATA_ARM_SMMUV3',
    'IOMMU_HWPT_DATA_AMD_GUEST',
    'IOMMU_HWPT_DATA_SELFTEST',
  ),
  'iommu_hwpt_vtd_s1.flags': flags('IOMMU_VTD_S1_SRE', 'IOMMU_VTD_S1_EAFE', 'IOMMU_VTD_S1_WPE'),
  'iommu_hw_info.flags': flags('IOMMU_HW_INFO_FLAG_INPUT_TYPE'),
  'iommu_hw_info.dataType': one(
    'IOMMU_HW_INFO_TYPE_NONE',
    'IOMMU_HW_INFO_TYPE_DEFAULT',
    'IOMMU_HW_INFO_TYPE_INTEL_VTD',
    'IOMMU_HW_INFO_TYPE_ARM_SMMUV3',
    'IOMMU_HW_INFO_TYPE_TEGRA241_CMDQV',
    'IOMMU_HW_INFO_TYPE_AMD',
    'IOMMU_HW_INFO_TYPE_SELFTEST',
  ),
  'iommu_hw_info.outCapabilities': flags(
    'IOMMU_HW_CAP_DIRTY_TRACKING',
    'IOMMU_HW_CAP_PCI_PASID_EXEC',
    'IOMMU_HW_CAP_PCI_PASID_PRIV',
    'IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED',
  ),
  'iommu_hw_info_vtd.flags': flags('IOMMU_HW_INFO_VTD_ERRATA_772415_SPR17'),
  'iommu_hwpt_set_dirty_tracking.flags': flags('IOMMU_HWPT_DIRTY_TRACKING_ENABLE'),
  'iommu_hwpt_get_dirty_bitmap.flags': flags('IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR'),
  'iommu_hwpt_invalidate.dataType': one(
    'IOMMU_HWPT_INVALIDATE_DATA_VTD_S1',
    'IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3',
    'IOMMU_HWPT_INVALIDATE_DATA_SELFTEST',
  ),
  'iommu_hwpt_vtd_s1_invalidate.flags': flags('IOMMU_VTD_INV_FLAGS_LEAF'),
  'iommu_hwpt_pgfault.flags': flags('IOMMU_PGFAULT_FLAGS_PASID_VALID', 'IOMMU_PGFAULT_FLAGS_LAST_PAGE'),
  'iommu_hwpt_pgfault.perm': flags(
    'IOMMU_PGFAULT_PERM_READ',
    'IOMMU_PGFAULT_PERM_WRITE',
    'IOMMU_PGFAULT_PERM_EXEC',
    'IOMMU_PGFAULT_PERM_PRIV',
  ),
  'iommu_hwpt_page_response.code': one('IOMMUFD_PAGE_RESP_SUCCESS', 'IOMMUFD_PAGE_RESP_INVALID'),
  'iommu_viommu_alloc.type': one(
    'IOMMU_VIOMMU_TYPE_DEFAULT',
    'IOMMU_VIOMMU_TYPE_ARM_SMMUV3',
    'IOMMU_VIOMMU_TYPE_TEGRA241_CMDQV',
    'IOMMU_VIOMMU_TYPE_SELFTEST',
  ),
  'iommu_veventq_alloc.type': one(
    'IOMMU_VEVENTQ_TYPE_DEFAULT',
    'IOMMU_VEVENTQ_TYPE_ARM_SMMUV3',
    'IOMMU_VEVENTQ_TYPE_TEGRA241_CMDQV',
    'IOMMU_VEVENTQ_TYPE_SELFTEST',
  ),
  'iommufd_vevent_header.flags': flags('IOMMU_VEVENTQ_FLAG_LOST_EVENTS'),
  'iommu_hw_queue_alloc.type': one('IOMMU_HW_QUEUE_TYPE_DEFAULT', 'IOMMU_HW_QUEUE_TYPE_TEGRA241_CMDQV'),
  'iommu_test_cmd.op': one(
    'IOMMU_TEST_OP_ADD_RESERVED',
    'IOMMU_TEST_OP_MOCK_DOMAIN',
    'IOMMU_TEST_OP_MD_CHECK_MAP',
    'IOMMU_TEST_OP_MD_CHECK_REFS',
    'IOMMU_TEST_OP_CREATE_ACCESS',
    'IOMMU_TEST_OP_DESTROY_ACCESS_PAGES',
    'IOMMU_TEST_OP_ACCESS_PAGES',
    'IOMMU_TEST_OP_ACCESS_RW',
    'IOMMU_TEST_OP_SET_TEMP_MEMORY_LIMIT',
    'IOMMU_TEST_OP_MOCK_DOMAIN_REPLACE',
    'IOMMU_TEST_OP_ACCESS_REPLACE_IOAS',
    'IOMMU_TEST_OP_MOCK_DOMAIN_FLAGS',
    'IOMMU_TEST_OP_DIRTY',
    'IOMMU_TEST_OP_MD_CHECK_IOTLB',
    'IOMMU_TEST_OP_TRIGGER_IOPF',
    'IOMMU_TEST_OP_DEV_CHECK_CACHE',
    'IOMMU_TEST_OP_TRIGGER_VEVENT',
    'IOMMU_TEST_OP_PASID_ATTACH',
    'IOMMU_TEST_OP_PASID_REPLACE',
    'IOMMU_TEST_OP_PASID_DETACH',
    'IOMMU_TEST_OP_PASID_CHECK_HWPT',
    'IOMMU_TEST_OP_DMABUF_GET',
    'IOMMU_TEST_OP_DMABUF_REVOKE',
  ),
  'vfio_device_info.flags': flags(
    'VFIO_DEVICE_FLAGS_RESET',
    'VFIO_DEVICE_FLAGS_PCI',
    'VFIO_DEVICE_FLAGS_PLATFORM',
    'VFIO_DEVICE_FLAGS_CAPS',
  ),
  'vfio_device_bind_iommufd.flags': flags('VFIO_DEVICE_BIND_FLAG_TOKEN'),
  'vfio_device_attach_iommufd_pt.flags': flags('VFIO_DEVICE_ATTACH_PASID'),
  'vfio_device_detach_iommufd_pt.flags': flags('VFIO_DEVICE_DETACH_PASID'),
  'vfio_iommu_type1_info.flags': flags('VFIO_IOMMU_INFO_PGSIZES', 'VFIO_IOMMU_INFO_CAPS'),
  'vfio_iommu_type1_dma_map.flags': flags(
    'VFIO_DMA_MAP_FLAG_READ',
    'VFIO_DMA_MAP_FLAG_WRITE',
    'VFIO_DMA_MAP_FLAG_VADDR',
  ),
  'vfio_iommu_type1_dma_unmap.flags': flags(
    'VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP',
    'VFIO_DMA_UNMAP_FLAG_ALL',
    'VFIO_DMA_UNMAP_FLAG_VADDR',
  ),
};

/** Registers and the like: numbers that mean nothing in decimal. */
const HEX: ReadonlySet<string> = new Set(['iommu_hw_info_arm_smmuv3.iidr', 'iommu_hw_info_arm_smmuv3.aidr']);

/** What CHECK_EXTENSION and SET_IOMMU take. */
export const VFIO_EXTENSIONS: NamedValues = one(
  'VFIO_TYPE1_IOMMU',
  'VFIO_TYPE1v2_IOMMU',
  'VFIO_DMA_CC_IOMMU',
  'VFIO_TYPE1_NESTING_IOMMU',
  'VFIO_NOIOMMU_IOMMU',
  'VFIO_UNMAP_ALL',
  'VFIO_UPDATE_VADDR',
);

/** Of a number that is not looked at. */
export const NO_NAMES: NamedValues = one();

export function namedValues(cName: string, field: string): NamedValues | undefined {
  return NAMED[`${cName}.${field}`];
}

export function inHex(cName: string, field: string): boolean {
  return HEX.has(`${cName}.${field}`);
}

/** The header's spelling of a field: `outIoasId` is `out_ioas_id`. */
export function cFieldName(field: string): string {
  return field.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
