internal import GuestMemory
internal import HostSystem
internal import PCI

// Accesses to a window that come here one by one, since whoever makes them cannot map it. The other
// machine works on the same bytes: a natural access is one access there too. When its file is cut
// short meanwhile the device's guard over the window turns the fault into zeros (HI-I11).
extension VirtioPCIFunction {
    func readWindow(_ window: Mapping, _ offset: UInt64, _ width: AccessWidth) -> UInt32 {
        if let place = unsafe Self.place(window, offset, width) {
            // Safety: inside the mapping, which `window` keeps, and aligned.
            switch width {
            case .byte: break
            case .word: return UInt32(unsafe SharedCell.loadAcquire16(place))
            case .long: return unsafe SharedCell.loadAcquire32(place)
            }
        }
        var value: UInt32 = 0
        for index in 0..<width.rawValue {
            let at = offset &+ UInt64(index)
            // Safety: inside the mapping, which `window` keeps.
            let byte =
                at < UInt64(window.length)
                ? unsafe window.address.load(fromByteOffset: Int(at), as: UInt8.self) : 0xff
            value |= UInt32(byte) << UInt32(8 * index)
        }
        return value
    }

    func writeWindow(
        _ window: Mapping,
        _ offset: UInt64,
        _ width: AccessWidth,
        _ value: UInt32
    ) {
        if let place = unsafe Self.place(window, offset, width) {
            // Safety: inside the mapping, which `window` keeps, and aligned.
            switch width {
            case .byte: break
            case .word:
                return unsafe SharedCell.storeRelease16(place, UInt16(truncatingIfNeeded: value))
            case .long: return unsafe SharedCell.storeRelease32(place, value)
            }
        }
        for index in 0..<width.rawValue {
            let at = offset &+ UInt64(index)
            guard at < UInt64(window.length) else { return }
            let byte = UInt8(truncatingIfNeeded: value >> UInt32(8 * index))
            // Safety: inside the mapping, which `window` keeps.
            unsafe window.address.storeBytes(of: byte, toByteOffset: Int(at), as: UInt8.self)
        }
    }

    /// Where a natural access goes; `nil` for one that is not aligned or not inside.
    private static func place(
        _ window: Mapping,
        _ offset: UInt64,
        _ width: AccessWidth
    ) -> UnsafeMutableRawPointer? {
        let size = UInt64(width.rawValue)
        guard offset % size == 0, offset < UInt64(window.length),
            size <= UInt64(window.length) - offset
        else { return nil }
        return unsafe window.address + Int(offset)
    }
}
