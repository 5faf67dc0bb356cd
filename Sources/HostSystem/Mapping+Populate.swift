internal import Glibc

extension Mapping {
    /// Makes every page of a part exist now, writable, so that a lack of huge pages shows here and
    /// not at the first touch (HI-I14). Position and length are multiples of the page size.
    public func populate(at position: Int, length: Int) throws(SystemError) {
        guard position >= 0, length > 0, position <= self.length,
            length <= self.length - position
        else { throw SystemError("populate \(length) bytes at \(position)", .noSpace) }
        let status = unsafe madvise(address + position, length, MADV_POPULATE_WRITE)
        guard status != 0 else { return }
        let number = Errno(Glibc.errno)
        // A page that cannot be had is reported as a bad address, which is no defect of ours here.
        throw SystemError(
            "populate \(length) bytes of a mapping",
            number == Errno(EFAULT) ? .noMemory : number
        )
    }
}
