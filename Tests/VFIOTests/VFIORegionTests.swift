import CLinuxVirtio
import PCI
import Testing

@testable import VFIO

/// Regions as the kernel describes them, well and badly; layouts against the kernel's header.
@Suite struct VFIORegionTests {
    private func region(_ bytes: [UInt8]) throws -> VFIORegion {
        try VFIORegion(AnswerBytes(bytes: bytes), index: 4)
    }

    private func sparse(_ pairs: [(UInt64, UInt64)]) throws -> [Range<UInt64>] {
        try region(
            Answer.region(
                size: 0x4000,
                offset: 0,
                flags: 0xf,
                capabilities: [
                    (VFIOLayout.messageMappableCapability, []),
                    (VFIOLayout.sparseCapability, Answer.pairs(pairs)),
                ]
            )
        ).mappable
    }

    @Test func `HI-H28: a region that fits into no file is refused`() throws {
        for (size, offset) in [
            (UInt64.max, UInt64(0)), (1, .max), (1, UInt64(Int64.max)), (1 << 63, 0),
            (1 << 62, 1 << 62),
        ] {
            let answer = Answer.region(size: size, offset: offset, flags: 7)
            #expect(failure { _ = try region(answer) }.hasPrefix("vfio/answer"))
        }
        let good = Answer.region(size: 1, offset: 0, flags: 7)
        for count in 0..<32 {
            #expect(failure { _ = try region(Array(good.prefix(count))) }.hasPrefix("vfio/a"))
        }
    }

    @Test func `HI-H28: a capability chain that loops or leaves the answer is refused`() throws {
        let good = Answer.region(
            size: 0x4000,
            offset: 0,
            flags: 0xf,
            capabilities: [(3, []), (1, Answer.pairs([(0, 0x1000)]))]
        )
        #expect(try region(good).mappable == [0..<0x1000])
        for (at, value) in [
            (12, UInt32(8)), (12, 31), (12, 33), (12, 4096), (12, .max), (36, 32), (36, 36),
            (36, 0x7fff_fffc), (44, 32), (44, 40), (44, 68), (48, 2), (48, .max),
        ] {
            var answer = good
            answer.replaceSubrange(at..<at + 4, with: Answer.words(value))
            #expect(failure { _ = try region(answer) }.hasPrefix("vfio/answer"), "\(at) \(value)")
        }
    }

    @Test func `HI-H6, HI-H27: areas outside the region are not mapped`() throws {
        #expect(try sparse([(0, 0x1000), (0x2000, 0x2000)]) == [0..<0x1000, 0x2000..<0x4000])
        #expect(try sparse([(0x4000, 0x1000), (0x3000, 0x1001), (.max, 1)]) == [])
        #expect(try sparse([(0x1000, .max), (0, 0), (0x800, 0x1000)]) == [])
        #expect(try sparse([(0, 0x1fff)]) == [0..<0x1000])
        #expect(try sparse([(0, 0x2000), (0x1000, 0x1000)]) == [0..<0x2000])
        #expect(try sparse([]) == [])
        let small = try region(Answer.region(size: 0x800, offset: 0, flags: 7))
        #expect(small.mappable == [])
        #expect(small.holds(0x7fc, 4))
        #expect(!small.holds(0x7fd, 4))
    }

    @Test func `HI-H27: a hole takes whole pages and nothing else`() throws {
        let whole = try region(Answer.region(size: 0x4000, offset: 0, flags: 7))
        #expect(whole.without(0x1ff0..<0x2010).mappable == [0..<0x1000, 0x3000..<0x4000])
        #expect(whole.without(0..<16).mappable == [0x1000..<0x4000])
        #expect(whole.without(0x3fff..<UInt64.max).mappable == [0..<0x3000])
        #expect(whole.without(0x9000..<0x9010).mappable == [0..<0x4000])
        #expect(whole.without(0..<0x4000).mappable == [])
    }

    @Test func `HI-H5…9: random answers never trap`() throws {
        var random = SystemRandomNumberGenerator()
        let good = Answer.region(
            size: 0x4000,
            offset: 0x40000,
            flags: 0xf,
            capabilities: [(1, Answer.pairs([(0, 0x1000)])), (3, [])]
        )
        var accepted = 0
        for _ in 0..<20_000 {
            var answer = good
            for _ in 0..<3 {
                answer[Int.random(in: 0..<answer.count)] = UInt8.random(in: 0...255, using: &random)
            }
            guard let region = try? region(answer) else { continue }
            accepted += 1
            for part in region.mappable {
                #expect(region.holds(part.lowerBound, part.upperBound - part.lowerBound))
            }
        }
        #expect(accepted > 0)
    }

    @Test func `layouts are those of linux/vfio.h`() {
        #expect(VFIOLayout.regionLength == MemoryLayout<vfio_region_info>.size)
        #expect(
            VFIOLayout.regionCapabilities == MemoryLayout<vfio_region_info>.offset(of: \.cap_offset)
        )
        #expect(VFIOLayout.regionSize == MemoryLayout<vfio_region_info>.offset(of: \.size))
        #expect(VFIOLayout.regionOffset == MemoryLayout<vfio_region_info>.offset(of: \.offset))
        #expect(VFIOLayout.regionFlags == MemoryLayout<vfio_region_info>.offset(of: \.flags))
        #expect(VFIOLayout.deviceFlags == MemoryLayout<vfio_device_info>.offset(of: \.flags))
        #expect(
            VFIOLayout.deviceRegionCount
                == MemoryLayout<vfio_device_info>.offset(of: \.num_regions)
        )
        #expect(
            VFIOLayout.deviceInterruptCount == MemoryLayout<vfio_device_info>.offset(of: \.num_irqs)
        )
        #expect(VFIOLayout.interruptLength == MemoryLayout<vfio_irq_info>.size)
        #expect(VFIOLayout.interruptFlags == MemoryLayout<vfio_irq_info>.offset(of: \.flags))
        #expect(VFIOLayout.interruptCount == MemoryLayout<vfio_irq_info>.offset(of: \.count))
        #expect(VFIOLayout.iommuFlags == MemoryLayout<vfio_iommu_type1_info>.offset(of: \.flags))
        #expect(
            VFIOLayout.iommuPageSizes
                == MemoryLayout<vfio_iommu_type1_info>.offset(of: \.iova_pgsizes)
        )
        #expect(
            VFIOLayout.iommuCapabilities
                == MemoryLayout<vfio_iommu_type1_info>.offset(of: \.cap_offset)
        )
        #expect(VFIOLayout.capabilityLength == MemoryLayout<vfio_info_cap_header>.size)
        #expect(VFIOLayout.hotResetLength == MemoryLayout<vfio_pci_hot_reset_info>.size)
        #expect(VFIOLayout.hotResetEntry == MemoryLayout<vfio_pci_dependent_device>.size)
    }

    @Test func `numbers are those of linux/vfio.h`() {
        #expect(VFIOLayout.apiVersion == Int(VFIO_API_VERSION))
        #expect(VFIOLayout.type1v2 == UInt32(VFIO_TYPE1v2_IOMMU))
        #expect(VFIOLayout.configurationRegion == Int(VFIO_PCI_CONFIG_REGION_INDEX))
        #expect(VFIOLayout.sparseCapability == UInt16(VFIO_REGION_INFO_CAP_SPARSE_MMAP))
        #expect(VFIOLayout.messageMappableCapability == UInt16(VFIO_REGION_INFO_CAP_MSIX_MAPPABLE))
        #expect(VFIOLayout.rangeCapability == UInt16(VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE))
        #expect(VFIOLayout.mappingsCapability == UInt16(VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL))
        #expect(VFIOLayout.deviceCanReset == UInt32(VFIO_DEVICE_FLAGS_RESET))
        #expect(VFIOLayout.deviceIsPCI == UInt32(VFIO_DEVICE_FLAGS_PCI))
        #expect(VFIOLayout.regionCanBeMapped == UInt32(VFIO_REGION_INFO_FLAG_MMAP))
        #expect(VFIOLayout.regionHasCapabilities == UInt32(VFIO_REGION_INFO_FLAG_CAPS))
        #expect(VFIOLayout.interruptTakesEvents == UInt32(VFIO_IRQ_INFO_EVENTFD))
        #expect(VFIOLayout.interruptHasFixedSize == UInt32(VFIO_IRQ_INFO_NORESIZE))
        #expect(VFIOLayout.dataNone == UInt32(VFIO_IRQ_SET_DATA_NONE))
        #expect(VFIOLayout.dataEvents == UInt32(VFIO_IRQ_SET_DATA_EVENTFD))
        #expect(VFIOLayout.actionMask == UInt32(VFIO_IRQ_SET_ACTION_MASK))
        #expect(VFIOLayout.actionUnmask == UInt32(VFIO_IRQ_SET_ACTION_UNMASK))
        #expect(VFIOLayout.actionTrigger == UInt32(VFIO_IRQ_SET_ACTION_TRIGGER))
        #expect(VFIOLayout.groupIsViable == UInt32(VFIO_GROUP_FLAGS_VIABLE))
        #expect(VFIOLayout.iommuHasPageSizes == UInt32(VFIO_IOMMU_INFO_PGSIZES))
        #expect(VFIOLayout.iommuHasCapabilities == UInt32(VFIO_IOMMU_INFO_CAPS))
        #expect(
            VFIOInterruptIndex.messageExtended.rawValue == Int(VFIO_PCI_MSIX_IRQ_INDEX)
        )
        #expect(VFIOInterruptIndex.request.rawValue == Int(VFIO_PCI_REQ_IRQ_INDEX))
    }
}
