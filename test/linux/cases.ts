/**
 * The cases of Linux 7.0's iommufd test programs, by fixture: which variants a fixture has, and which tests run in each
 * of them. tools/testing/selftests/iommu/iommufd.c and iommufd_fail_nth.c, in the order of those files.
 */

export interface FixtureCases {
  /** None: the tests run once. */
  readonly variants: readonly string[];
  readonly tests: readonly string[];
  /** Tests that need what a variant does not have, and say so (SKIP): by variant. */
  readonly skipped?: Readonly<Record<string, readonly string[]>>;
}

export const IOMMUFD = {
  iommufd: {
    variants: [],
    tests: [
      'simple_close',
      'cmd_fail',
      'cmd_length',
      'cmd_ex_fail',
      'global_options',
      'simple_ioctls',
      'unmap_cmd',
      'map_cmd',
      'info_cmd',
      'set_iommu_cmd',
      'vfio_ioas',
    ],
  },
  change_process: { variants: ['account_none', 'account_user', 'account_mm'], tests: ['basic'] },
  iommufd_ioas: {
    variants: ['no_domain', 'mock_domain', 'two_mock_domain', 'mock_domain_limit'],
    tests: [
      'ioas_auto_destroy',
      'ioas_destroy',
      'alloc_hwpt_nested',
      'hwpt_attach',
      'ioas_area_destroy',
      'ioas_area_auto_destroy',
      'get_hw_info',
      'area',
      'unmap_fully_contained_areas',
      'area_auto_iova',
      'reserved_overflow',
      'area_allowed',
      'copy_area',
      'iova_ranges',
      'access_domain_destory',
      'access_pin',
      'access_pin_unmap',
      'access_rw',
      'access_rw_unaligned',
      'fork_gone',
      'fork_present',
      'ioas_option_huge_pages',
      'ioas_iova_alloc',
      'ioas_align_change',
      'copy_sweep',
      'dmabuf_simple',
      'dmabuf_revoke',
    ],
  },
  iommufd_mock_domain: {
    variants: [
      'one_domain',
      'two_domains',
      'one_domain_hugepage',
      'two_domains_hugepage',
      'one_domain_file',
      'one_domain_file_hugepage',
    ],
    tests: ['basic', 'ro_unshare', 'all_aligns', 'all_aligns_copy', 'user_copy', 'replace', 'alloc_hwpt'],
  },
  iommufd_dirty_tracking: {
    variants: [
      'domain_dirty8k',
      'domain_dirty16k',
      'domain_dirty64k',
      'domain_dirty128k',
      'domain_dirty320k',
      'domain_dirty64M',
      'domain_dirty64M_huge',
      'domain_dirty128M',
      'domain_dirty128M_huge',
    ],
    tests: [
      'enforce_dirty',
      'set_dirty_tracking',
      'pasid_set_dirty_tracking',
      'device_dirty_capability',
      'get_dirty_bitmap',
      'get_dirty_bitmap_no_clear',
    ],
  },
  vfio_compat_mock_domain: {
    variants: ['Ver1v2', 'Ver1v0'],
    tests: ['simple_close', 'option_huge_pages', 'get_info', 'map', 'huge_map'],
  },
  iommufd_viommu: {
    variants: ['no_viommu', 'mock_viommu'],
    tests: [
      'viommu_auto_destroy',
      'viommu_negative_tests',
      'viommu_alloc_nested_iopf',
      'viommu_alloc_with_data',
      'vdevice_alloc',
      'vdevice_cache',
      'hw_queue',
      'vdevice_tombstone',
    ],
    skipped: {
      no_viommu: [
        'viommu_alloc_nested_iopf',
        'viommu_alloc_with_data',
        'vdevice_cache',
        'hw_queue',
        'vdevice_tombstone',
      ],
    },
  },
  iommufd_device_pasid: { variants: ['no_pasid', 'has_pasid'], tests: ['pasid_attach'] },
} as const satisfies Record<string, FixtureCases>;

export const FAIL_NTH = {
  basic_fail_nth: {
    variants: [],
    tests: [
      'basic',
      'map_domain',
      'map_file_domain',
      'map_two_domains',
      'access_rw',
      'access_pin',
      'access_pin_domain',
      'device',
    ],
  },
} as const satisfies Record<string, FixtureCases>;
